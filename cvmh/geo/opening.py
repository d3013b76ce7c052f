"""Opening a raster, and saying in one sentence why it cannot be opened or read."""

import re
import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cvmh.errors import RasterError
from cvmh.geo.tiling import Window

# What GDAL's failures arrive as; rasterio passes some of GDAL's own errors on unchanged.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
LFS_POINTER = b"version https://git-lfs"
# GDAL's words when a file that a VRT names is not there.
MISSING_SOURCE = re.compile(r"'?(?P<source>[^']+?)'?: No such file or directory")


def open_dataset(path: str) -> Any:
    """Open a rasterio dataset for reading, quietly also where it has no georeference.

    Raises:
        RasterError: the file is missing, empty, damaged, or not a raster.
    """
    try:
        # Rasters without a georeference are welcome: a photo is predicted on its own grid.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except GDAL_ERRORS as error:
        raise RasterError(_why_not_opened(path, error)) from error
    if not dataset.count:
        dataset.close()
        raise RasterError(
            f"{path} holds no raster band itself; name one of its subdatasets (see gdalinfo {path})"
        )
    return dataset


def explain_read_failure(path: str, window: Window, error: Exception) -> RasterError:
    """Return the error that says where a raster could not be read, why, and what to do."""
    reason = str(error.__cause__ or error)
    missing = MISSING_SOURCE.search(reason)
    if missing:
        return RasterError(
            f"{path} needs the file {missing['source']}, which is missing; "
            "put it there or correct the path in the VRT"
        )
    return RasterError(
        f"{path} is damaged or cut off: {window} cannot be read ({reason}); "
        "fetch or copy the file again"
    )


def _why_not_opened(path: str, error: Exception) -> str:
    file = Path(path)
    # A URL or another dataset name of GDAL is no file; only GDAL knows what is wrong with it.
    if "://" in path or path.startswith("/vsi"):
        return f"{path} cannot be opened ({error})"
    if not file.exists():
        return f"{path} does not exist"
    if file.is_dir():
        return f"{path} is a folder, not a raster"
    if file.stat().st_size == 0:
        return f"{path} is empty (0 bytes); fetch or copy the file again"
    try:
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
    except OSError as unreadable:
        return f"{path} cannot be read ({unreadable.strerror})"
    if start == LFS_POINTER:
        return f"{path} is a git-LFS pointer, not the raster itself; run 'git lfs pull' there"
    return f"{path} is not a raster that can be opened, or its header is damaged ({error})"
