"""Pictures from arrays and tables; no window is ever opened."""

from cvmh.plots.pictures import NODATA_COLOUR, Range, colour_ids, find_range, preview, stretch
from cvmh.plots.training import curves

__all__ = ["NODATA_COLOUR", "Range", "colour_ids", "curves", "find_range", "preview", "stretch"]
