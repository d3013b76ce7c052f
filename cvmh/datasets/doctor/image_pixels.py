"""Gathering the facts of an image's pixels, window by window."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.doctor.anchors import Anchors, find_anchors, join
from cvmh.datasets.doctor.facts import BandFacts, ImageFacts
from cvmh.datasets.doctor.finding import Place
from cvmh.datasets.doctor.thumb import ThumbSum
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.geo.validity import Validity


class ImageReader:
    """Gathers the facts of an image's pixels."""

    def __init__(
        self,
        facts: ImageFacts,
        raster: Raster,
        bands: tuple[int, ...],
        alpha: int | None,
        bits: int,
    ) -> None:
        self._facts, self._raster, self._bands, self._bits = facts, raster, bands, bits
        self._rule = Validity(raster, bands, alpha=alpha)
        self._thumb = ThumbSum(raster.height, raster.width)
        self._digest = hashlib.blake2b(f"{raster.shape} {raster.dtypes}".encode(), digest_size=16)
        self._parts: list[Anchors] = []
        declared = [raster.nodata[band - 1] for band in bands]
        self._is_nan_nodata = any(value is not None and np.isnan(value) for value in declared)
        facts.bands = BandFacts.empty(len(bands))

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return a window as one grey band, and where it has data."""
        pixels = self._raster.read(window, self._bands)
        valid = self._rule.read(window, pixels)
        self._digest.update(np.ascontiguousarray(pixels).tobytes())
        self._parts.append(find_anchors(pixels[0], window, bits=self._bits))
        values = pixels.astype(np.float64)
        self._add_bands(values, valid, window)
        grey = np.where(valid, values[:3].mean(axis=0), 0).astype(np.float32)
        self._thumb.add(grey, window)
        return grey, valid

    def finish(self) -> None:
        """Keep what could only be known at the end."""
        self._facts.digest = self._digest.hexdigest()
        self._facts.thumb = self._thumb.result()
        self._facts.anchors = join(self._parts)

    def _add_bands(
        self, values: NDArray[np.float64], valid: NDArray[np.bool_], window: Window
    ) -> None:
        bands = self._facts.bands
        assert bands is not None
        wrong = ~np.isfinite(values).all(axis=0)
        if wrong.any() and not self._is_nan_nodata:
            row, column = np.argwhere(wrong)[0]
            bands.not_numbers += int(np.count_nonzero(wrong))
            bands.first_not_number = bands.first_not_number or Place(
                file=self._facts.entry.image,
                row=window.row + int(row),
                column=window.column + int(column),
            )
        if not valid.any():
            return
        for band, found in enumerate(values[:, valid]):
            bands.count[band] += found.size
            bands.total[band] += found.sum()
            bands.squares[band] += (found * found).sum()
            bands.lowest[band] = min(bands.lowest[band], found.min())
            bands.highest[band] = max(bands.highest[band], found.max())
