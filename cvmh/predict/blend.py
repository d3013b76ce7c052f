"""Joining the scores of overlapping tiles, a stripe at a time.

Legend: K classes, H height of a tile, W width of the scene.
"""

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.tiling import TilePlan, blend_weights
from cvmh.predict.infer import ScoredTile


class ScoreBuffer:
    """The weighted scores of the rows that tiles still touch: K x tile height x scene width.

    It slides down the scene, so its size does not depend on the scene's height. The weights need
    no sum of their own: a tile's scores sum to one over the classes, so the buffer's sum over
    the classes is the sum of weights, and the class with the largest weighted sum is the class
    with the largest mean score.
    """

    def __init__(self, plan: TilePlan, num_classes: int) -> None:
        size = (plan.tile_height, plan.width)
        self.scores_KHW = np.zeros((num_classes, *size), dtype=np.float32)
        self.is_valid_HW = np.zeros(size, dtype=bool)
        self._weights = blend_weights(plan.tile_height, plan.tile_width)

    def add(self, scored: ScoredTile) -> None:
        """Add a tile of the current stripe."""
        columns = scored.tile.window.columns
        self.is_valid_HW[:, columns] |= scored.tile.is_valid_HW
        if scored.scores_KHW is not None:
            self.scores_KHW[:, :, columns] += scored.scores_KHW * self._weights

    def take_rows(self, count: int) -> NDArray[np.uint8]:
        """Return the first ``count`` rows as class ids, 255 where not data, and slide past them."""
        ids = self.scores_KHW[:, :count].argmax(axis=0).astype(np.uint8)
        ids[~self.is_valid_HW[:count]] = NODATA_ID
        # Plane by plane, so that numpy's copy of an overlapping move stays small.
        for plane in (*self.scores_KHW, self.is_valid_HW):
            plane[:-count] = plane[count:]
            plane[-count:] = 0
        return ids
