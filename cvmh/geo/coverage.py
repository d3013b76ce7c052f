"""Which parts of a raster are stored at all, found without reading a pixel.

A GeoTIFF may leave out blocks (a sparse file), and the sources of a VRT need not cover it. What
was never stored reads as nodata or 0, yet it is no measurement: it is no data, whether a nodata
value is declared or not. A pixel is covered if at least one of the used bands is stored there.
For other formats, and for VRTs that compute their pixels (warped, pansharpened, derived bands),
everything may hold data.

GDAL offers the same as GetDataCoverageStatus, which rasterio does not pass on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import Interleaving

from cvmh.geo.cells import CellGrid, mark_rectangles
from cvmh.geo.opening import open_dataset
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.geo.virtual import covered_by_sources, list_sources

# Half a microsecond each. Blocks so small that there are more of them are not worth the look.
MAX_BLOCKS = 4_000_000
# Cells of a VRT's coverage, whose sources may lie anywhere; a cell errs towards data.
MIN_CELL, MAX_CELLS = 128, 1_000_000


class Coverage:
    """Where a raster is stored: inside some rectangles, and nowhere else.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        rectangles: (number, 4) first row, end row, first column, end column; they may overlap,
            and lie inside the raster.
        cell: height and width of the cells by which many windows are judged at once; the answer
            is exact where each rectangle is made of whole cells. Default: by the raster's size.
    """

    def __init__(
        self,
        height: int,
        width: int,
        rectangles: NDArray[np.int64],
        *,
        cell: tuple[int, int] | None = None,
    ) -> None:
        self._size = height, width
        self._rectangles = rectangles
        cell_height, cell_width = cell or _cell_for(height, width)
        self._grid: CellGrid = mark_rectangles(rectangles, height, width, cell_height, cell_width)

    @property
    def share(self) -> float:
        """The share of the raster that is stored, 0 to 1, rounded up to whole cells."""
        return self._grid.share

    def meets(
        self,
        first_rows: ArrayLike,
        end_rows: ArrayLike,
        first_columns: ArrayLike,
        end_columns: ArrayLike,
    ) -> NDArray[np.bool_]:
        """Return for each window whether any pixel of it may be stored.

        False is certain; true may err by less than a cell. The arguments are broadcast: see
        :meth:`cvmh.geo.cells.CellGrid.meets`.
        """
        return self._grid.meets(first_rows, end_rows, first_columns, end_columns)

    def look(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the whole raster shrunk to (height, width), true where it may be stored."""
        rows = np.arange(height) * self._size[0] // height
        columns = np.arange(width) * self._size[1] // width
        return self.meets(rows[:, None], rows[:, None] + 1, columns[None], columns[None] + 1)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return (H, W), true where the pixel is stored, exactly."""
        origin = np.array([window.row, window.row, window.column, window.column])
        limits = np.array([window.height, window.height, window.width, window.width])
        inside = np.clip(self._rectangles - origin, 0, limits)
        is_met = (inside[:, 0] < inside[:, 1]) & (inside[:, 2] < inside[:, 3])
        is_stored = np.zeros((window.height, window.width), dtype=bool)
        for top, bottom, left, right in inside[is_met].tolist():
            is_stored[top:bottom, left:right] = True
        return is_stored


def find_coverage(raster: Raster, bands: Sequence[int]) -> Coverage | None:
    """Return where the used bands of a raster are stored, None if everything may hold data.

    Costs half a microsecond a block of a GeoTIFF, and for a VRT the opening of its sources.

    Args:
        raster: the open raster.
        bands: the used bands, numbered from 1.

    Raises:
        RasterError: the raster can no longer be opened.
    """
    # A dataset of its own: another thread may be reading from the raster.
    with open_dataset(raster.path) as dataset:
        found = _rectangles(dataset, sorted(set(bands)), depth=0)
        if found is None or _covers(found, dataset.height, dataset.width):
            return None
        is_tiff = dataset.driver == "GTiff"
        cell = dataset.block_shapes[0] if is_tiff else None
        return Coverage(dataset.height, dataset.width, found, cell=cell)


def _rectangles(dataset: Any, bands: Sequence[int], *, depth: int) -> NDArray[np.int64] | None:
    """Return the rectangles (number, 4) in which any of the bands is stored, None if unknown."""
    if dataset.driver == "GTiff":
        return _stored_blocks(dataset, bands)
    if dataset.driver == "VRT":
        sources = list_sources(dataset, bands)
        if sources is not None:
            return covered_by_sources(dataset, sources, _rectangles, depth=depth)
    return None


def _stored_blocks(dataset: Any, bands: Sequence[int]) -> NDArray[np.int64] | None:
    """Return where blocks of a GeoTIFF are stored; those side by side are one rectangle."""
    height, width = dataset.block_shapes[0]
    shape = -(-dataset.height // height), -(-dataset.width // width)
    # Bands that are stored pixel by pixel share their blocks.
    apart = [bands[0]] if dataset.interleaving == Interleaving.pixel else bands
    if shape[0] * shape[1] * len(apart) > MAX_BLOCKS:
        return None
    is_stored = np.zeros(shape, dtype=bool)
    for band in apart:
        is_stored |= _is_stored(dataset, band, shape)
    edges = np.diff(np.pad(is_stored, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, first = np.nonzero(edges == 1)
    end = np.nonzero(edges == -1)[1]
    found = np.stack([rows * height, (rows + 1) * height, first * width, end * width], axis=1)
    limits = [dataset.height, dataset.height, dataset.width, dataset.width]
    return np.minimum(found.astype(np.int64), limits)


def _is_stored(dataset: Any, band: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    offset_of = dataset.get_tag_item
    stored = (
        offset_of(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band) is not None
        for row in range(shape[0])
        for column in range(shape[1])
    )
    return np.fromiter(stored, dtype=bool, count=shape[0] * shape[1]).reshape(shape)


def _covers(rectangles: NDArray[np.int64], height: int, width: int) -> bool:
    """True if together the rectangles surely cover the raster, as those of most files do."""
    rows = np.unique(np.append(rectangles[:, :2], [0, height]))
    columns = np.unique(np.append(rectangles[:, 2:], [0, width]))
    shape = len(rows) - 1, len(columns) - 1
    if shape[0] * shape[1] > MAX_CELLS:
        return False
    # Between neighbouring edges of rectangles all pixels are alike, so that one stands for them.
    alike = np.concatenate(
        [np.searchsorted(rows, rectangles[:, :2]), np.searchsorted(columns, rectangles[:, 2:])],
        axis=1,
    )
    return mark_rectangles(alike, *shape, 1, 1).share == 1


def _cell_for(height: int, width: int) -> tuple[int, int]:
    side = MIN_CELL
    while -(-height // side) * -(-width // side) > MAX_CELLS:
        side *= 2
    return side, side
