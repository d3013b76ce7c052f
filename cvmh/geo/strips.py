"""Rows that arrive one after another, as the blocks of an intermediate file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

# Size in pixels of a block; what is held back until its last row has come is one row of blocks.
STRIP_HEIGHT, STRIP_WIDTH = 128, 512
# GDAL can keep a float32 in 16 bits, but then fills the last blocks beyond the raster's edge with
# whatever lies in its memory, so that no two files are alike. Packed, a float32 is no larger.
DTYPES = {"float16": "float32"}
LAYOUT = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": STRIP_WIDTH,
    "blockysize": STRIP_HEIGHT,
    # By bands, a block is written once and whole, whatever fits in GDAL's cache.
    "interleave": "band",
    # The file is read once, to become the raster.
    "compress": "deflate",
    "zlevel": 1,
    "sparse_ok": True,
    "bigtiff": "IF_SAFER",
    # Left alone, GDAL takes three bands of bytes for colours and a fourth for alpha.
    "photometric": "MINISBLACK",
    "alpha": "NO",
}


class Strips:
    """A GeoTIFF that is written from top to bottom and stores no block without data.

    Failures are those of GDAL; ``close`` may find out what went wrong before.

    Attributes:
        dataset: the open rasterio dataset, to describe it before the first row.
        stored: (bands, rows of blocks, columns of blocks), true where a block has any data.
        full: the same, true where a block is all data.

    Args:
        path: the file.
        shape: (bands, height, width).
        dtype: that of the rows, any of GDAL's or "float16".
        nodata: the value of pixels without data; may be NaN.
        georeference: creation options of the file that say where its pixels lie.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        dtype: str,
        nodata: float,
        georeference: dict[str, Any],
    ) -> None:
        count, self._height, self._width = shape
        size = {"count": count, "height": self._height, "width": self._width}
        self._dtype, self._nodata = DTYPES.get(dtype, dtype), nodata
        grid = count, -(-self._height // STRIP_HEIGHT), -(-self._width // STRIP_WIDTH)
        self.stored, self.full = np.zeros(grid, dtype=bool), np.zeros(grid, dtype=bool)
        self._pending = np.full((count, STRIP_HEIGHT, self._width), nodata, dtype=dtype)
        self._next_row = self._filled = 0
        self.dataset: Any = rasterio.open(
            path, "w", **LAYOUT, **size, dtype=self._dtype, nodata=nodata, **georeference
        )

    def append(self, rows: NDArray[Any] | None, count: int) -> None:
        """Append rows (bands, count, width), or as many without data."""
        start = 0
        while start < count:
            end = min(count, start + STRIP_HEIGHT - self._filled)
            if rows is None and not self._filled and end - start == STRIP_HEIGHT:
                end = start + (count - start) // STRIP_HEIGHT * STRIP_HEIGHT
                self._next_row += end - start
            elif rows is not None and end - start == STRIP_HEIGHT:
                self._store(rows[:, start:end])
            else:
                place = slice(self._filled, self._filled + end - start)
                self._pending[:, place] = self._nodata if rows is None else rows[:, start:end]
                self._filled += end - start
            if self._filled == STRIP_HEIGHT:
                self._flush()
            start = end

    def close(self) -> None:
        """Write what was held back, and close the file."""
        self._flush()
        assert self._next_row == self._height, "every row of a raster must be written"
        self.dataset.close()

    def _flush(self) -> None:
        filled, self._filled = self._filled, 0
        if filled:
            self._store(self._pending[:, :filled])

    def _store(self, rows: NDArray[Any]) -> None:
        """Write the rows of one row of blocks, where they have data."""
        strip = self._next_row // STRIP_HEIGHT
        for column in range(self.stored.shape[2]):
            place = slice(column * STRIP_WIDTH, (column + 1) * STRIP_WIDTH)
            for band, block in enumerate(rows[:, :, place]):
                gaps = _count(block, self._nodata)
                self.stored[band, strip, column] = gaps < block.size
                self.full[band, strip, column] = gaps == 0
        for first, end in _runs(np.logical_or.reduce(self.stored[:, strip])):
            part = rows[:, :, first * STRIP_WIDTH : end * STRIP_WIDTH]
            column, height, width = first * STRIP_WIDTH, *part.shape[1:]
            window = RasterioWindow(column, self._next_row, width, height)
            self.dataset.write(part.astype(self._dtype, copy=False), window=window)
        self._next_row += rows.shape[1]


def _count(block: NDArray[Any], value: float) -> int:
    return int(np.count_nonzero(np.isnan(block) if np.isnan(value) else block == value))


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of each run of true flags."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
