"""How much of a scene is data, estimated from one coarse look at it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.opening import GDAL_ERRORS, open_dataset
from cvmh.geo.raster import Raster
from cvmh.geo.validity import Validity

# The look is at most so many pixels a side, and GDAL may decode so many pixels for it.
MAX_SIDE = 1024
MAX_PIXELS = 16_000_000
# GDAL takes an overview that is coarser than what was asked for by at most this factor.
OVERSAMPLING = 1.2


def estimate_data(
    raster: Raster, bands: Sequence[int], validity: Validity
) -> NDArray[np.bool_] | None:
    """Return a small map (H, W) of where the scene is data, None if it is costly to know.

    An estimate for plans, never a decision: an overview may miss single pixels. A large file
    without overviews is not read; then what its area of interest and its stored blocks leave is
    given, if there are such, which is too much rather than too little.

    Args:
        raster: the open scene.
        bands: the used bands, numbered from 1.
        validity: the rule, made for the same raster and bands.
    """
    decimation = max(1.0, max(raster.height, raster.width) / MAX_SIDE)
    height, width = (max(1, int(side / decimation)) for side in (raster.height, raster.width))
    outline = validity.look(height, width)
    try:
        with open_dataset(raster.path) as dataset:
            if _decoded_pixels(dataset, bands, decimation) > MAX_PIXELS:
                return None if outline.all() else outline
            shape = height, width
            pixels = dataset.read(list(bands), out_shape=(len(bands), *shape))
            if validity.alpha is not None:
                outline &= dataset.read(validity.alpha, out_shape=shape) != 0
            if raster.has_mask:
                outline &= dataset.read_masks(1, out_shape=shape) != 0
    except GDAL_ERRORS:
        # Whoever reads all of the scene says what is wrong with it, and where.
        return None
    return validity.judge(pixels, outline)


def _decoded_pixels(dataset: Any, bands: Sequence[int], decimation: float) -> float:
    factors = [1, *dataset.overviews(bands[0])]
    used = max(factor for factor in factors if factor <= decimation * OVERSAMPLING)
    return float(dataset.height / used * (dataset.width / used))
