"""Which pixels of a scene are data: one rule for nodata, NaN, alpha, masks, holes and areas.

A pixel is data unless one of these holds:

* it lies outside the area of interest (``area.py``);
* none of the used bands was ever stored there (``coverage.py``);
* the alpha band is 0, if the band tagged alpha truly is one;
* the internal mask or the ``.msk`` file is 0;
* every used band equals its declared nodata value. One band alone may hit that value by chance:
  255 is white, 0 is a shadow. This is also how GDAL joins the bands of a dataset;
* a used band of floating dtype is NaN or infinite, declared or not.

The first four are known before a pixel of the used bands is read. A value that merely looks like
nodata but is declared nowhere is data, unless the user says of one that it is nodata in the bands
that declare none.

Legend: C bands, H height, W width.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvmh.errors import RasterError
from cvmh.geo.coverage import Coverage
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

if TYPE_CHECKING:
    from cvmh.geo.area import Area

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
        area: the area of interest, None for everywhere.
        coverage: where the bands are stored, None for everywhere; see
            :func:`cvmh.geo.coverage.find_coverage`.

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
        area: "Area | None" = None,
        coverage: Coverage | None = None,
    ) -> None:
        self._raster = raster
        # The number of the alpha band, None if there is none; estimates look at it too.
        self.alpha = alpha
        self._extents = [extent for extent in (area, coverage) if extent is not None]
        dtype = np.dtype(raster.dtype_of(bands))
        declared = [raster.nodata[band - 1] for band in bands]
        if nodata is not None and dtype.kind != "f" and _as_pixel(nodata, dtype) is None:
            raise RasterError(
                f"nodata {nodata:g} cannot be a pixel of {raster.path}, whose bands are {dtype}"
            )
        self._nodata = [_as_pixel(nodata if own is None else own, dtype) for own in declared]
        self._is_float = dtype.kind == "f"

    @property
    def has_outline(self) -> bool:
        """True if some pixels may be known to be no data before the used bands are read."""
        return bool(self._extents) or self.alpha is not None or self._raster.has_mask

    @property
    def is_everywhere(self) -> bool:
        """True if every pixel of the scene is data, whatever its value."""
        has_nodata = all(value is not None for value in self._nodata)
        return not (self.has_outline or self._is_float or has_nodata)

    def meets(
        self,
        first_rows: ArrayLike,
        end_rows: ArrayLike,
        first_columns: ArrayLike,
        end_columns: ArrayLike,
    ) -> NDArray[np.bool_]:
        """Return for each of many windows whether it may hold data, without reading anything.

        False is certain. The arguments are in pixels, ends exclusive, and are broadcast against
        each other: rows as (n, 1) and columns as (1, m) ask about n x m windows.
        """
        edges = (first_rows, end_rows, first_columns, end_columns)
        may_hold = np.ones(np.broadcast_shapes(*(np.shape(edge) for edge in edges)), dtype=bool)
        for extent in self._extents:
            may_hold &= extent.meets(*edges)
        return may_hold

    def look(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the raster shrunk to (height, width), true where it may be data, unread."""
        may_hold = np.ones((height, width), dtype=bool)
        for extent in self._extents:
            may_hold &= extent.look(height, width)
        return may_hold

    def read_outline(self, window: Window) -> NDArray[np.bool_]:
        """Return (H, W), true where the pixel may be data, without reading the used bands.

        Where it is false everywhere, the pixels of the window need not be read.

        Raises:
            RasterError: the alpha band or the mask cannot be read.
        """
        outline = np.ones((window.height, window.width), dtype=bool)
        for extent in self._extents:
            outline &= extent.read(window)
        if self.alpha is not None and outline.any():
            outline &= self._raster.read(window, [self.alpha])[0] != 0
        if self._raster.has_mask and outline.any():
            outline &= self._raster.read_mask(window)
        return outline

    def read(
        self,
        window: Window,
        pixels_CHW: NDArray[Any],
        outline: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Return (H, W), true where the pixel is data.

        Args:
            window: where the pixels were read.
            pixels_CHW: the used bands there, in their order and native dtype.
            outline: what :meth:`read_outline` gave for the window, if it was asked already; it
                is modified and returned.

        Raises:
            RasterError: the alpha band or the mask cannot be read.
        """
        return self.judge(pixels_CHW, self.read_outline(window) if outline is None else outline)

    def judge(self, pixels_CHW: NDArray[Any], outline: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take the pixels that their values show to be no data out of an outline, in place."""
        empty = self._find_empty(pixels_CHW)
        if empty is not None:
            outline &= np.logical_not(empty, out=empty)
        if self._is_float:
            is_finite = np.empty(outline.shape, dtype=bool)
            for pixels in pixels_CHW:
                outline &= np.isfinite(pixels, out=is_finite)
        return outline

    def find_missing(self, pixels_CHW: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return (C, H, W), true where a sample of floating dtype has its band's nodata value.

        A pixel may be data though one of its bands is not; None if there is no such sample. NaN
        is not looked for: where one is, :meth:`read` says already that the pixel is no data. In
        integers the nodata value may be a true one, such as a shadow's 0, so there every sample
        is kept.
        """
        if not self._is_float:
            return None
        missing = None
        for band, (pixels, value) in enumerate(zip(pixels_CHW, self._nodata, strict=True)):
            if value is None:
                continue
            equal = np.equal(pixels, value)
            if equal.any():
                if missing is None:
                    missing = np.zeros(pixels_CHW.shape, dtype=bool)
                missing[band] = equal
        return missing

    def _find_empty(self, pixels_CHW: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return (H, W), true where each band has its nodata value, None if nowhere."""
        if any(value is None for value in self._nodata):
            return None
        empty = np.equal(pixels_CHW[0], self._nodata[0])
        for pixels, value in zip(pixels_CHW[1:], self._nodata[1:], strict=True):
            # Most windows have no nodata at all, which one band is enough to see.
            if not empty.any():
                return None
            empty &= np.equal(pixels, value)
        return empty if empty.any() else None


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
