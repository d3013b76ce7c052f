"""Turning the intermediate file of a raster into a cloud-optimised GeoTIFF with overviews."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling

from cvmh.geo.intact import Flags, check_blocks
from cvmh.geo.strips import STRIP_HEIGHT

# Side of the blocks of the finished file; one that fits in a block gets no overviews.
BLOCK = 512
Overviews = Literal["nearest", "average"]
# Class ids have no slope for a predictor, and level 5 is half the time of 6 at a tenth more bytes;
# scores shrink by their slope, and hardly by a higher level.
COMPRESSION: dict[str, dict[str, Any]] = {
    "nearest": {"level": 5},
    "average": {"level": 1, "predictor": "YES"},
}
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


def make_cog(rows: Path, whole: Path, overviews: Overviews, stored: Flags, full: Flags) -> None:
    """Copy a file of strips into a cloud-optimised one, and check that nothing was lost.

    Args:
        rows: the file of :class:`~cvmh.geo.strips.Strips`; it gets the overviews, too.
        whole: the new file.
        overviews: "nearest" for values that are names, "average" for quantities.
        stored: which blocks of ``rows`` have any data; see ``Strips``.
        full: which blocks of ``rows`` are all data.

    Raises:
        OSError: or another of GDAL's errors; a block is missing, or the disk is full.
    """
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE):
        _add_overviews(rows, overviews)
        check_blocks(rows, stored, full)
        rasterio.shutil.copy(
            rows,
            whole,
            driver="COG",
            blocksize=BLOCK,
            compress="DEFLATE",
            bigtiff="IF_SAFER",
            sparse_ok=True,
            num_threads=_num_threads(),
            **COMPRESSION[overviews],
        )
    starts = np.arange(0, stored.shape[1], BLOCK // STRIP_HEIGHT)
    check_blocks(
        whole,
        np.logical_or.reduceat(stored, starts, axis=1),
        np.logical_and.reduceat(full, starts, axis=1),
    )


def _add_overviews(path: Path, overviews: Overviews) -> None:
    """Halve a raster until it fits in one block."""
    with rasterio.Env(**OVERVIEWS), rasterio.open(path, "r+") as dataset:
        num_halvings = math.ceil(math.log2(max(*dataset.shape, BLOCK) / BLOCK))
        if num_halvings:
            factors = [2**number for number in range(1, num_halvings + 1)]
            dataset.build_overviews(factors, Resampling[overviews])


def _num_threads() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST_THREADS, len(allowed(0)) if allowed else os.cpu_count() or 1)
