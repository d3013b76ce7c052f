"""Tiles of a scene as the network wants them.

Legend: C bands, H height, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.raster import Raster
from cvmh.geo.tiling import TilePlan, Window
from cvmh.geo.validity import Validity, find_alpha
from cvmh.models.bundle import BundleCard


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One window of a scene: network input, and where the scene is data."""

    window: Window
    pixels_CHW: NDArray[np.float32]
    is_valid_HW: NDArray[np.bool_]

    @property
    def is_empty(self) -> bool:
        """True if no pixel of the tile is data, so that the network need not see it."""
        return not self.is_valid_HW.any()


class TileReader:
    """Reads tiles and scales them with the statistics of the bundle, the same for every tile.

    Args:
        raster: the open scene.
        bands: the bands of the scene, numbered from 1, in the order of the network.
        card: gives mean and standard deviation per band.
        nodata: the value of pixels without data in bands that declare none.

    Raises:
        RasterError: no pixel can have the value ``nodata``, or the alpha band cannot be read.
    """

    def __init__(
        self,
        raster: Raster,
        bands: Sequence[int],
        card: BundleCard,
        *,
        nodata: float | None = None,
    ) -> None:
        self._raster = raster
        self._bands = tuple(bands)
        alpha = find_alpha(raster, bands)
        self._validity = Validity(raster, bands, alpha=alpha, nodata=nodata)
        self._mean = np.array(card.mean, dtype=np.float32)[:, None, None]
        self._std = np.array(card.std, dtype=np.float32)[:, None, None]

    def read(self, window: Window) -> Tile:
        """Read one tile; where there is no measurement the input is 0, the mean of training.

        Raises:
            RasterError: the scene is damaged there.
        """
        native = self._raster.read(window, self._bands)
        is_valid = self._validity.read(window, native)
        is_known = is_valid & ~self._validity.find_missing(native)
        return Tile(window=window, pixels_CHW=self._scale(native, is_known), is_valid_HW=is_valid)

    def read_all(self, plan: TilePlan) -> Iterator[Tile]:
        """Yield the tiles of a plan, stripe by stripe."""
        for stripe in plan.stripes():
            for window in stripe.windows:
                yield self.read(window)

    def _scale(
        self, native_CHW: NDArray[Any], is_known_CHW: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        # Before the cast: a nodata value of float64 need not fit into float32.
        pixels = np.where(is_known_CHW, native_CHW, 0).astype(np.float32)
        scaled = (pixels - self._mean) / self._std
        scaled[~is_known_CHW] = 0
        return scaled
