"""Images and labels of a data set as arrays, checked as they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.labelled import LabelEncoding
from cvmh.errors import DataError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.geo.validity import Validity, find_alpha

# Whether a tagged band is an alpha band is judged on so many images of the set together.
IMAGES_JUDGED = 16


class ImageBands(NamedTuple):
    """Which bands (1-based) of the images of a set are data, and which one is alpha, if any."""

    bands: tuple[int, ...]
    alpha: int | None
    names: tuple[str, ...]
    dtype: str


def choose_bands(paths: Sequence[Path], wanted: Sequence[int] | None = None) -> ImageBands:
    """Decide which bands of a set of images are data.

    Bands that the user names are data, whatever they are tagged. Otherwise all bands are, except
    an alpha band: one that is tagged alpha and holds only 0 and the dtype's largest value in all
    of the images that are looked at.

    Raises:
        DataError: images differ in the number or dtype of their bands, or a wanted band is missing.
    """
    with Raster(paths[0]) as first:
        num_bands, names, tagged = first.num_bands, first.band_names, first.tagged_alpha
        if not all(1 <= band <= num_bands for band in wanted or ()):
            raise DataError(
                f"data.bands must name bands 1..{num_bands} of {paths[0]}, got {list(wanted or ())}"
            )
        dtype = first.dtype_of(wanted)
    for path in paths[1:]:
        with Raster(path) as raster:
            # A raster of fewer bands may lack the wanted ones.
            found = raster.dtype_of(wanted if raster.num_bands == num_bands else None)
            if (raster.num_bands, found) != (num_bands, dtype):
                raise DataError(
                    f"all images must have the same bands, but {paths[0].name} has {num_bands} of "
                    f"{dtype} and {path} has {raster.num_bands} of {found}"
                )
    have_alpha = all(_has_alpha(path, wanted or ()) for path in paths[:IMAGES_JUDGED])
    alpha = tagged if have_alpha else None
    bands = tuple(wanted or (b for b in range(1, num_bands + 1) if b != alpha))
    if not bands:
        raise DataError(f"{paths[0]} must have a band of data, got an alpha band alone")
    return ImageBands(bands, alpha, tuple(names[band - 1] for band in bands), dtype)


def read_image(
    raster: Raster, chosen: ImageBands, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the pixels (bands, H, W) of a window as float32, and where they are data (H, W).

    A sample that holds no measurement is NaN, also where other bands of its pixel do.
    """
    pixels = raster.read(window, chosen.bands)
    rule = Validity(raster, chosen.bands, alpha=chosen.alpha)
    validity = rule.read(window, pixels)
    missing = rule.find_missing(pixels)
    # A double may be too large for a float; it becomes infinite, and then it is missing.
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float32)
    if pixels.dtype == np.float64:
        values[np.isinf(values)] = np.nan
    if missing is not None:
        values[missing] = np.nan
    if not validity.all():
        values[:, ~validity] = np.nan
    return values, validity


def check_bands(raster: Raster, chosen: ImageBands) -> None:
    """Refuse an image that differs from the others of its set in bands or dtype.

    Raises:
        DataError: it does.
    """
    missing = max(chosen.bands) > raster.num_bands
    if missing or raster.dtype_of(chosen.bands) != chosen.dtype:
        raise DataError(
            f"all images must have bands {list(chosen.bands)} of {chosen.dtype}, but {raster.path} "
            f"has {raster.num_bands} of {raster.dtypes[0]}"
        )


def check_label(label: Raster, image: Raster, encoding: LabelEncoding) -> None:
    """Refuse a label that has not its encoding's bands or not its image's size.

    Raises:
        DataError: it has not.
    """
    size = (image.height, image.width)
    if label.num_bands not in encoding.band_counts or label.shape[1:] != size:
        wanted = "one band" if encoding.num_bands == 1 else "three bands (red, green, blue)"
        raise DataError(
            f"label {label.path} must be {wanted} of {image.height} x {image.width} pixels like "
            f"its image, got {label.num_bands} of {label.height} x {label.width}"
        )


def read_label(label: Raster, encoding: LabelEncoding, window: Window) -> NDArray[np.uint8]:
    """Return the class ids (H, W) of a window; 255 where the label does not count.

    Raises:
        DataError: the label holds a value that its encoding does not know.
    """
    pixels = label.read(window, range(1, encoding.num_bands + 1))
    ids, unknown = encoding.decode(pixels)
    if not unknown.any():
        return ids
    declared = label.nodata[0]
    if declared is not None and encoding.colours is None:
        # A class that is declared nodata by mistake stays a class.
        unknown &= ~((pixels[0] == declared) | (pixels[0] != pixels[0]) & np.isnan(declared))
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        value = pixels[:, row, column].tolist()
        what = f"class id {value[0]}" if encoding.colours is None else f"colour {tuple(value)}"
        raise DataError(
            f"label {label.path} holds {what} at row {window.row + row}, "
            f"column {window.column + column}; its data set has {encoding.known}; "
            "'cvmh data doctor' counts all such pixels"
        )
    return ids


def _has_alpha(path: Path, wanted: Sequence[int]) -> bool:
    with Raster(path) as raster:
        return find_alpha(raster, wanted) is not None
