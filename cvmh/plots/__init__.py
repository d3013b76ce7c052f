"""Pictures from arrays and tables; no window is ever opened."""

from cvmh.plots.pictures import (
    NODATA_COLOUR,
    RIGHT_COLOUR,
    WRONG_COLOUR,
    Range,
    colour_errors,
    colour_ids,
    find_range,
    preview,
    stretch,
)
from cvmh.plots.scores import (
    ClassBar,
    IntervalBar,
    class_bars,
    interval_bars,
    reliability_diagram,
    training_diagram,
)
from cvmh.plots.training import curves

__all__ = [
    "NODATA_COLOUR",
    "RIGHT_COLOUR",
    "WRONG_COLOUR",
    "ClassBar",
    "IntervalBar",
    "Range",
    "class_bars",
    "colour_errors",
    "colour_ids",
    "curves",
    "find_range",
    "interval_bars",
    "preview",
    "reliability_diagram",
    "stretch",
    "training_diagram",
]
