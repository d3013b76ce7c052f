"""Whether a scene fits a bundle, found out before any output is opened."""

from collections.abc import Sequence

from cvmh.errors import BundleError, RasterError
from cvmh.geo.raster import Raster
from cvmh.models.bundle import BundleCard
from cvmh.predict.options import Warn


def check_card(card: BundleCard) -> None:
    """Refuse statistics that cannot scale the bands.

    Raises:
        BundleError: there is not one mean and one positive deviation a band.
    """
    if not len(card.mean) == len(card.std) == len(card.band_names) or min(card.std) <= 0:
        raise BundleError(
            f"the bundle must have a mean and a positive std for each of its "
            f"{len(card.band_names)} bands, got mean {card.mean} and std {card.std}"
        )


def check_values(
    raster: Raster, bands: Sequence[int], card: BundleCard, *, force: bool = False
) -> None:
    """Refuse values that do not mean what they meant in training.

    Raises:
        RasterError: the dtype differs from that of training, or the scene is a palette, and
            ``force`` is not set; or the bands have several dtypes.
    """
    dtype = raster.dtype_of(bands)
    if force:
        return
    if dtype != card.dtype:
        raise RasterError(
            f"{raster.path} must be {card.dtype} as in training, got {dtype}; "
            "rescale it, or use --force if its values have the same range"
        )
    if raster.is_palette:
        raise RasterError(
            f"{raster.path} must hold intensities, got a palette (numbers of colours); "
            "expand it with 'gdal_translate -expand rgb', or use --force"
        )


def is_far(raster: Raster, card: BundleCard) -> bool:
    """Return whether pixels are much larger or smaller on the ground than in training."""
    return card.is_far_from(raster.gsd)


def compare_gsd(raster: Raster, card: BundleCard, warn: Warn) -> None:
    """Warn where pixels are much larger or smaller on the ground than in training."""
    if is_far(raster, card):
        warn(
            f"{raster.path} has pixels of {raster.gsd:.3g} m, but the bundle was trained with "
            f"{card.gsd:.3g} m; without resampling the mask may be poor"
        )


def compare_nodata(raster: Raster, bands: Sequence[int], nodata: float | None, warn: Warn) -> None:
    """Warn where the scene declares other nodata for all bands than what the user says."""
    declared = [raster.nodata[band - 1] for band in bands]
    if nodata is None or None in declared or all(_is_same(nodata, value) for value in declared):
        return
    values = ", ".join(f"{value:g}" for value in dict.fromkeys(declared) if value is not None)
    warn(
        f"{raster.path} declares nodata {values} for all of its bands that are used, so the given "
        f"{nodata:g} counts as data; declare another with gdal_edit.py -a_nodata"
    )


def _is_same(one: float, other: float | None) -> bool:
    return one == other or (one != one and other != other)
