"""An open scene as a source of input: its bands, where it holds data, and how it is scaled.

Legend: C bands, H height, W width.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import RasterError
from cvmh.geo.bands import match_bands
from cvmh.geo.coverage import find_coverage
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Stripe, TilePlan, plan_tiles
from cvmh.geo.validity import Validity, find_alpha
from cvmh.models.bundle import BundleCard
from cvmh.predict.checks import check_card, check_values, compare_gsd, compare_nodata, is_far
from cvmh.predict.options import PredictOptions, Warn

logger = logging.getLogger("cvmh")

# Resampled scenes must give a tile as many pixels a side: of fewer, a network sees but a blur, and
# takes days, since each of their pixels becomes thousands.
FEWEST_PIXELS = 8

# How many (rows, columns) of the scene one pixel of the network's input stands for, at a row.
Magnify = Callable[[float], tuple[float, float]]


class Scaling:
    """Turns native pixels into the network's input, the same way for every tile of a scene.

    Args:
        card: gives mean and standard deviation per band.
        validity: says which samples hold no measurement.
    """

    def __init__(self, card: BundleCard, validity: Validity) -> None:
        self._validity = validity
        self._mean = np.array(card.mean, dtype=np.float32)[:, None, None]
        self._std = np.array(card.std, dtype=np.float32)[:, None, None]

    def scale(self, native_CHW: NDArray[Any], is_valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return float32 pixels; where there is no measurement they are 0, the mean of training."""
        missing = self._validity.find_missing(native_CHW)
        if missing is None and is_valid.all():
            # What float32 cannot hold is infinite to the network, whose scores are then refused.
            with np.errstate(over="ignore"):
                pixels = native_CHW.astype(np.float32)
            pixels -= self._mean
            pixels /= self._std
            return pixels
        is_known = is_valid if missing is None else is_valid & ~missing
        # Before the cast: a nodata value of float64 need not fit into float32.
        with np.errstate(over="ignore"):
            pixels = np.where(is_known, native_CHW, 0).astype(np.float32)
        scaled = (pixels - self._mean) / self._std
        return np.asarray(np.where(is_known, scaled, np.float32(0)))


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open scene, its bands in use, and what is known of its pixels without reading them.

    ``magnify`` is None where the scene is shown to the network as it is.
    """

    raster: Raster
    bands: tuple[int, ...]
    validity: Validity
    scaling: Scaling
    tile: int
    magnify: Magnify | None

    def lay_tiles(self, overlap: float) -> TilePlan:
        """Return the tiles of the scene.

        Raises:
            ConfigError: the tile or the overlap is out of range.
        """
        return plan_tiles(
            self.raster.height,
            self.raster.width,
            tile=self.tile,
            overlap=overlap,
            magnify=self.magnify,
        )

    def may_hold(self, stripe: Stripe) -> NDArray[np.bool_]:
        """Return which tiles of a stripe may hold data, one boolean a tile; false is certain."""
        columns = np.array(stripe.columns, dtype=np.int64)
        return self.validity.meets(stripe.row, stripe.end_row, columns, columns + stripe.width)


def open_source(raster: Raster, card: BundleCard, options: PredictOptions, warn: Warn) -> Source:
    """Check that a scene fits a bundle, and say how it is read.

    Raises:
        CvmhError: it does not fit, or the area of interest cannot be used.
    """
    check_card(card)
    bands = match_bands(card.band_names, raster, explicit=options.bands)
    check_values(raster, bands, card, force=options.force)
    area = None
    if options.aoi is not None:
        # The readers of vector files load slowly, and are seldom needed.
        from cvmh.geo.area_file import open_area

        area = open_area(options.aoi, raster)
    validity = Validity(
        raster,
        bands,
        alpha=find_alpha(raster, bands),
        nodata=options.nodata,
        area=area,
        coverage=find_coverage(raster, bands),
    )
    compare_nodata(raster, bands, options.nodata, warn)
    return Source(
        raster=raster,
        bands=bands,
        validity=validity,
        scaling=Scaling(card, validity),
        tile=card.tile if options.tile is None else options.tile,
        magnify=_find_magnification(raster, card, options, warn),
    )


def _find_magnification(
    raster: Raster, card: BundleCard, options: PredictOptions, warn: Warn
) -> Magnify | None:
    """Return how the scene is resampled to the pixels of training, None if it is not."""
    if not is_far(raster, card):
        return None
    if not options.resample:
        compare_gsd(raster, card, warn)
        return None
    georeference, column, target = raster.georeference, raster.width / 2, card.gsd
    assert target is not None, "pixels that are far from those of training have a known size"
    tile = options.tile or card.tile
    if raster.gsd is not None and tile * target < FEWEST_PIXELS * raster.gsd:
        raise RasterError(
            f"{raster.path} has pixels of {raster.gsd:.3g} m, of which a tile of {tile} pixels of "
            f"{target:.3g} m, as in training, shows fewer than {FEWEST_PIXELS} a side; use "
            "--no-resample to predict it all the same, or a bundle for such pixels"
        )
    logger.info(
        "%s has pixels of %.3g m; the network sees them resampled to the %.3g m of training",
        raster.path,
        raster.gsd,
        target,
    )

    def magnify(row: float) -> tuple[float, float]:
        scale = georeference.scale_at(row, column)
        rows, columns = scale if scale is not None else (math.nan, math.nan)
        is_known = math.isfinite(rows * columns) and rows * columns > 0
        return (target / rows, target / columns) if is_known else (1.0, 1.0)

    return magnify
