"""What comes of a tile: its scores, and the class of each pixel.

Legend: K classes, H height, W width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cvmh.predict.cells import Cells
from cvmh.predict.read import Tile


class ScoredTile(NamedTuple):
    """A tile, its scores (K, H, W), which sum to one over the classes, and its class ids (H, W).

    ``cells`` are those that were computed, None where the tile ran dense; scores of pixels without
    data mean nothing.
    """

    tile: Tile
    scores_KHW: torch.Tensor
    ids_HW: NDArray[np.uint8]
    cells: Cells | None = None


def best_class(
    scores_KHW: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the class with the largest score, the first of equals, and that score, (H, W) each.

    Class by class over whole planes: several times as fast as an argmax across planes.
    """
    best = scores_KHW[0].copy()
    ids = np.zeros(best.shape, dtype=np.uint8)
    for number, plane in enumerate(scores_KHW[1:], start=1):
        larger = np.greater(plane, best).view(np.uint8)
        np.maximum(ids, larger * np.uint8(number), out=ids)
        np.maximum(best, plane, out=best)
    return ids, best
