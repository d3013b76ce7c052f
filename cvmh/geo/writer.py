"""Writing rasters on the exact grid of a scene: row by row, complete or not there at all."""

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.geo.intact import check_blocks
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.output import check_output, explained, publish
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.version import VERSION

# Side of the blocks of the finished file; one that fits in a block gets no overviews.
BLOCK = 512
# Height of the blocks of the intermediate file: what is held back until its last row has come.
STRIP = 128
Overviews = Literal["nearest", "average"]
# Class ids have no slope for a predictor, and level 5 is half the time of 6 at a tenth more bytes;
# scores shrink by their slope, and hardly by a higher level.
COMPRESSION: dict[str, dict[str, Any]] = {
    "nearest": {"level": 5},
    "average": {"level": 1, "predictor": "YES"},
}
# GDAL can keep a float32 in 16 bits, but then fills the last blocks beyond the raster's edge with
# whatever lies in its memory, so that no two files are alike. Packed, a float32 is no larger.
DTYPES = {"float16": "float32"}
# While a raster is finished its blocks come in order and once, so a large cache gains nothing.
SMALL_CACHE = 16 << 20
# Several threads would make overviews at twice the time and memory.
OVERVIEWS = {
    "GDAL_NUM_THREADS": 1,
    "GDAL_TIFF_OVR_BLOCKSIZE": BLOCK,
    "SPARSE_OK_OVERVIEW": "ON",
    "ZLEVEL_OVERVIEW": 1,
}
# More threads than that wait for the disk.
MOST_THREADS = 4


class GridWriter:
    """Writes a raster row by row, from top to bottom, and shows it only when it is whole.

    A context manager: on leaving it without an error the raster is turned into a cloud-optimised
    GeoTIFF with overviews, checked, and renamed to its name; on any error nothing is left
    behind. Memory is that of :data:`STRIP` rows and of GDAL's cache; blocks without any data
    are not stored at all. The same rows give the same bytes.

    Args:
        path: the raster, ``.tif`` or ``.tiff``.
        scene: the open scene; size and georeference are taken over from it.
        band_names: one a band, kept as descriptions.
        nodata: the value of pixels without data, in all bands; may be NaN.
        dtype: that of the rows, any of GDAL's or "float16".
        scale: what a value must be multiplied with, kept for GDAL; values stay as they come.
        colours: colour table {value: (red, green, blue, alpha)} of a single uint8 band.
        overviews: "nearest" for values that are names, "average" for quantities.
        tags: tags, for example the model and the command line; names get the prefix CVMH_.
        overwrite: whether an existing file may be replaced.
        folder: an existing folder for the intermediate files, on the disk of ``path``; what a
            killed run left there under the same name is removed. Default a new one beside it.

    Raises:
        OutputError: the file exists, would replace its own scene, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        scene: Raster,
        *,
        band_names: Sequence[str],
        nodata: float,
        dtype: str = "uint8",
        scale: float | None = None,
        colours: Mapping[int, tuple[int, int, int, int]] | None = None,
        overviews: Overviews = "average",
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.path = Path(path)
        check_output(self.path, scene, overwrite=overwrite)
        self._height, self._width = scene.height, scene.width
        self._band_names, self._nodata = tuple(band_names), nodata
        self._scale, self._colours, self._overviews = scale, colours, overviews
        self._tags = {"CVMH_VERSION": VERSION}
        self._tags |= {f"CVMH_{name.upper()}": value for name, value in (tags or {}).items()}
        self._keep_in = folder
        self._profile = _profile(scene, len(self._band_names), dtype, nodata)
        self._next_row = self._filled = 0
        shape = len(self._band_names), STRIP, self._width
        self._pending = np.full(shape, nodata, dtype=dtype)
        grid = shape[0], -(-self._height // STRIP), -(-self._width // BLOCK)
        # For each block of the intermediate file, whether it has any data and whether only data.
        self._stored, self._full = np.zeros(grid, dtype=bool), np.zeros(grid, dtype=bool)

    def __enter__(self) -> Self:
        with explained(self.path):
            self._folder = self._make_folder()
        try:
            with explained(self.path), _quiet(), bounded_cache():
                self._dataset = rasterio.open(self._folder / "rows.tif", "w", **self._profile)
                self._describe()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with explained(self.path), _quiet(), bounded_cache():
                    self._finish()
        finally:
            self._discard()

    def write_rows(self, rows: NDArray[Any]) -> None:
        """Append the next rows, (rows, width) or (bands, rows, width).

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._append(rows[None] if rows.ndim == 2 else rows, rows.shape[-2])

    def skip_rows(self, count: int) -> None:
        """Append rows without any data; those that fill whole blocks cost nothing.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._append(None, count)

    def add_sidecars(self, made: Path) -> None:
        """Write what shall lie beside the finished raster beside ``made``, its name until then."""

    def _append(self, rows: NDArray[Any] | None, count: int) -> None:
        """Append (bands, count, width), or rows without data."""
        start = 0
        while start < count:
            end = min(count, start + STRIP - self._filled)
            if rows is None and not self._filled and end - start == STRIP:
                end = start + (count - start) // STRIP * STRIP
                self._next_row += end - start
            elif rows is not None and end - start == STRIP:
                self._store(rows[:, start:end])
            else:
                place = slice(self._filled, self._filled + end - start)
                self._pending[:, place] = self._nodata if rows is None else rows[:, start:end]
                self._filled += end - start
            if self._filled == STRIP:
                self._flush()
            start = end

    def _flush(self) -> None:
        filled, self._filled = self._filled, 0
        if filled:
            self._store(self._pending[:, :filled])

    def _store(self, rows: NDArray[Any]) -> None:
        """Write the rows of one row of blocks, where they have data."""
        strip = self._next_row // STRIP
        for column in range(self._stored.shape[2]):
            for band, block in enumerate(rows[:, :, column * BLOCK : (column + 1) * BLOCK]):
                gaps = _count(block, self._nodata)
                self._stored[band, strip, column] = gaps < block.size
                self._full[band, strip, column] = gaps == 0
        with explained(self.path), bounded_cache():
            for first, end in _runs(np.logical_or.reduce(self._stored[:, strip])):
                part = rows[:, :, first * BLOCK : end * BLOCK]
                window = RasterioWindow(first * BLOCK, self._next_row, part.shape[2], part.shape[1])
                self._dataset.write(part.astype(self._profile["dtype"], copy=False), window=window)
        self._next_row += rows.shape[1]

    def _finish(self) -> None:
        self._flush()
        assert self._next_row == self._height, "every row of a raster must be written"
        rows, whole = self._folder / "rows.tif", self._folder / "whole.tif"
        self._dataset.close()
        with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE):
            self._add_overviews(rows)
            check_blocks(rows, self._stored, self._full)
            _copy(rows, whole, COMPRESSION[self._overviews])
        starts = np.arange(0, self._stored.shape[1], BLOCK // STRIP)
        check_blocks(
            whole,
            np.logical_or.reduceat(self._stored, starts, axis=1),
            np.logical_and.reduceat(self._full, starts, axis=1),
        )
        # A CRS that GeoTIFF keys cannot express is kept by GDAL in an .aux.xml.
        self.add_sidecars(whole)
        publish(whole, self.path)

    def _add_overviews(self, path: Path) -> None:
        """Halve the raster until it fits in one block."""
        num_halvings = math.ceil(math.log2(max(self._height, self._width, BLOCK) / BLOCK))
        factors = [2**number for number in range(1, num_halvings + 1)]
        if factors:
            with rasterio.Env(**OVERVIEWS), rasterio.open(path, "r+") as dataset:
                dataset.build_overviews(factors, Resampling[self._overviews])

    def _make_folder(self) -> Path:
        if self._keep_in is None:
            name = f".{self.path.name}."
            return Path(tempfile.mkdtemp(prefix=name, suffix=".part", dir=self.path.parent))
        folder = self._keep_in / f"{self.path.name}.part"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def _describe(self) -> None:
        # A GeoTIFF takes its colour table only before its first pixel.
        if self._colours is not None:
            self._dataset.write_colormap(1, dict(self._colours))
        self._dataset.update_tags(**self._tags)
        self._dataset.descriptions = self._band_names
        if self._scale is not None:
            self._dataset.scales = [self._scale] * len(self._band_names)

    def _discard(self) -> None:
        dataset = getattr(self, "_dataset", None)
        if dataset is not None and not dataset.closed:
            try:
                dataset.close()
            except GDAL_ERRORS:
                # The file is thrown away; why it failed is already on its way up.
                pass
        shutil.rmtree(self._folder, ignore_errors=True)


def _profile(scene: Raster, num_bands: int, dtype: str, nodata: float) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "height": scene.height,
        "width": scene.width,
        "count": num_bands,
        "dtype": DTYPES.get(dtype, dtype),
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": STRIP,
        # By bands, a block is written once and whole, whatever fits in GDAL's cache.
        "interleave": "band",
        # This file is read once, to become the raster.
        "compress": "deflate",
        "zlevel": 1,
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
        # Left alone, GDAL takes three bands of bytes for colours and a fourth for alpha.
        "photometric": "MINISBLACK",
        "alpha": "NO",
        **scene.georeference.profile(),
    }


def _copy(rows: Path, whole: Path, compression: dict[str, Any]) -> None:
    """Copy a raster with its overviews into a cloud-optimised one."""
    rasterio.shutil.copy(
        rows,
        whole,
        driver="COG",
        blocksize=BLOCK,
        compress="DEFLATE",
        bigtiff="IF_SAFER",
        sparse_ok=True,
        num_threads=_num_threads(),
        **compression,
    )


def _count(block: NDArray[Any], value: float) -> int:
    return int(np.count_nonzero(np.isnan(block) if np.isnan(value) else block == value))


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of each run of true flags."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _num_threads() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST_THREADS, len(allowed(0)) if allowed else os.cpu_count() or 1)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
