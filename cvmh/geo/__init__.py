"""Where pixels lie: tiles, rasters in and masks out, validity, bands."""

from cvmh.geo.raster import Raster, write_raster
from cvmh.geo.tiling import Window, blend_weights, plan_tiles

__all__ = ["Raster", "Window", "blend_weights", "plan_tiles", "write_raster"]
