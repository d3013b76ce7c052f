"""Which pixels of a scene are data: one rule for nodata, NaN, alpha and masks.

A pixel is data unless one of these holds:

* every used band equals its declared nodata value. One band alone may hit that value by chance:
  255 is white, 0 is a shadow. This is also how GDAL joins the bands of a dataset;
* a used band of floating dtype is NaN or infinite, declared or not;
* the alpha band is 0, if the band tagged alpha truly is one;
* the internal mask or the ``.msk`` file is 0.

A value that merely looks like nodata but is declared nowhere is data, unless the user says of one
that it is nodata in the bands that declare none.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import RasterError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

# Transparency is on or off but for soft edges; near infrared in the place of alpha is neither.
ALPHA_SHARE = 0.98
# The band is judged by this many samples a side, so that a huge scene is not read for it.
SAMPLES, SAMPLE_SIDE = 5, 256


def find_alpha(raster: Raster, used: Sequence[int] = ()) -> int | None:
    """Return the number of the band that truly is alpha, None if there is none.

    NAIP and others ship near infrared tagged as alpha. A band counts as alpha only if nearly all
    of its sampled values are 0 or fully opaque; a band that is used is data, whatever its tag.

    Raises:
        RasterError: the band cannot be read.
    """
    band = raster.tagged_alpha
    if band is None or band in used:
        return None
    dtype = np.dtype(raster.dtype_of([band]))
    opaque = np.iinfo(dtype).max if dtype.kind in "iu" else 1
    extreme = total = 0
    for window in _samples(raster):
        values = raster.read(window, [band])
        extreme += int(np.count_nonzero((values == 0) | (values == opaque)))
        total += values.size
    return band if extreme >= ALPHA_SHARE * total else None


class Validity:
    """Says which pixels of a raster are data when some of its bands are used.

    Args:
        raster: the open raster.
        bands: the used bands, numbered from 1.
        alpha: the number of the alpha band, None if there is none; see :func:`find_alpha`.
        nodata: the value of pixels without data in bands that declare none.

    Raises:
        RasterError: no pixel of the bands' dtype can have the value ``nodata``.
    """

    def __init__(
        self,
        raster: Raster,
        bands: Sequence[int],
        *,
        alpha: int | None,
        nodata: float | None = None,
    ) -> None:
        self._raster = raster
        self._alpha = alpha
        dtype = np.dtype(raster.dtype_of(bands))
        declared = [raster.nodata[band - 1] for band in bands]
        if nodata is not None and dtype.kind != "f" and _as_pixel(nodata, dtype) is None:
            raise RasterError(
                f"nodata {nodata:g} cannot be a pixel of {raster.path}, whose bands are {dtype}"
            )
        self._nodata = [_as_pixel(nodata if own is None else own, dtype) for own in declared]

    def read(self, window: Window, pixels_CHW: NDArray[Any]) -> NDArray[np.bool_]:
        """Return (H, W), true where the pixel is data.

        Args:
            window: where the pixels were read.
            pixels_CHW: the used bands there, in their order and native dtype.

        Raises:
            RasterError: the alpha band or the mask cannot be read.
        """
        is_valid = np.logical_not(self._equals_nodata(pixels_CHW).all(axis=0))
        if pixels_CHW.dtype.kind == "f":
            is_valid &= np.isfinite(pixels_CHW).all(axis=0)
        if self._alpha is not None:
            is_valid &= self._raster.read(window, [self._alpha])[0] != 0
        if self._raster.has_mask:
            is_valid &= self._raster.read_mask(window)
        return is_valid

    def find_missing(self, pixels_CHW: NDArray[Any]) -> NDArray[np.bool_]:
        """Return (C, H, W), true where a sample of floating dtype holds no measurement.

        A pixel may be data though one of its bands is not. In integers the nodata value may be
        a true one, such as a shadow's 0, so there every sample is kept.
        """
        if pixels_CHW.dtype.kind != "f":
            return np.zeros(pixels_CHW.shape, dtype=bool)
        return ~np.isfinite(pixels_CHW) | self._equals_nodata(pixels_CHW)

    def _equals_nodata(self, pixels_CHW: NDArray[Any]) -> NDArray[np.bool_]:
        equal = np.zeros(pixels_CHW.shape, dtype=bool)
        for plane, pixels, value in zip(equal, pixels_CHW, self._nodata, strict=True):
            if value is not None:
                np.equal(pixels, value, out=plane)
        return equal


def _as_pixel(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Return the nodata value as a pixel holds it, None if no pixel of that dtype can."""
    if nodata is None or not np.isfinite(nodata):
        # NaN and infinity are found as such.
        return None
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        possible = limits.min <= nodata <= limits.max and nodata == int(nodata)
        return dtype.type(int(nodata)) if possible else None
    with np.errstate(over="ignore"):
        return dtype.type(nodata)


def _samples(raster: Raster) -> Iterator[Window]:
    """Yield windows spread over a raster; together all of it if it is small."""
    for row, height in _spread(raster.height):
        for column, width in _spread(raster.width):
            yield Window(row, column, height, width)


def _spread(size: int) -> list[tuple[int, int]]:
    if size <= SAMPLES * SAMPLE_SIDE:
        return [(0, size)]
    return [
        (int(start), SAMPLE_SIDE)
        for start in np.linspace(0, size - SAMPLE_SIDE, SAMPLES).astype(int)
    ]
