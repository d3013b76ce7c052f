"""TSM2: a state space network for satellite image time series; see docs/tsm2.md."""

from cvmh.models.tsm2.heads import TSM2Classifier, TSM2Forecaster
from cvmh.models.tsm2.settings import ClassifierSettings, ForecasterSettings, TSM2Settings
from cvmh.models.tsm2.trunk import TSM2

__all__ = [
    "TSM2",
    "ClassifierSettings",
    "ForecasterSettings",
    "TSM2Classifier",
    "TSM2Forecaster",
    "TSM2Settings",
]
