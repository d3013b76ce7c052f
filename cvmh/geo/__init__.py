"""Where pixels lie: tiles, rasters in and masks out, validity, bands."""

from cvmh.geo.bands import match_bands
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster, write_raster
from cvmh.geo.tiling import Window, blend_weights, plan_tiles
from cvmh.geo.validity import Validity, find_alpha

__all__ = [
    "MaskWriter",
    "Raster",
    "Validity",
    "Window",
    "blend_weights",
    "find_alpha",
    "match_bands",
    "plan_tiles",
    "write_raster",
]
