"""Writing a raster in blocks, of which a small window needs only a few."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.errors import OutputError
from cvmh.geo.georeference import Georeference
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.tiling import Window

# Rows and columns of a block; a crop of 256 pixels touches four at most.
BLOCK = 256


def write_tiled(
    path: Path,
    read: Callable[[Window], NDArray[Any]],
    *,
    shape: tuple[int, int, int],
    dtype: str,
    georeference: Georeference,
    nodata: float | None = None,
    band_names: Sequence[str] | None = None,
    alpha: int | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Write a GeoTIFF of compressed blocks row of blocks by row of blocks, complete or not at all.

    Args:
        path: the file; an existing one is replaced.
        read: gives the pixels (bands, height, width) of a window.
        shape: (bands, height, width).
        dtype: that of the pixels.
        georeference: where the pixels lie.
        nodata: the value to declare as nodata in every band.
        band_names: one a band, kept as descriptions.
        alpha: the band to tag as alpha, from 1.
        colours: colour table (red, green, blue) of values 0, 1, 2 ... of a single uint8 band.

    Raises:
        OutputError: the file cannot be written.
    """
    count, height, width = shape
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            profile = {**_profile(shape, dtype, is_table=colours is not None), "nodata": nodata}
            with rasterio.open(temporary, "w", **profile, **georeference.profile()) as dataset:
                if colours is not None:
                    dataset.write_colormap(1, {i: (*rgb, 255) for i, rgb in enumerate(colours)})
                if band_names is not None:
                    dataset.descriptions = tuple(band_names)
                if alpha is not None:
                    tags = [ColorInterp.undefined] * count
                    tags[alpha - 1] = ColorInterp.alpha
                    dataset.colorinterp = tags
                for row in range(0, height, BLOCK):
                    rows = min(BLOCK, height - row)
                    pixels = read(Window(row, 0, rows, width))
                    dataset.write(pixels, window=RasterioWindow(0, row, width, rows))
        temporary.replace(path)
    except GDAL_ERRORS as error:
        raise OutputError(f"{path} cannot be written ({error.__cause__ or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _profile(shape: tuple[int, int, int], dtype: str, *, is_table: bool) -> dict[str, Any]:
    count, height, width = shape
    whole = dtype.startswith(("uint", "int"))
    return {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": dtype,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "pixel",
        "compress": "deflate",
        # Neighbouring intensities differ little; neighbouring classes are equal or not.
        "predictor": 1 if is_table else 2 if whole else 3,
        "bigtiff": "IF_SAFER",
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }
