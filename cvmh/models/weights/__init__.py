"""Published weights: files of others read safely, recognised by their shapes, and taken over."""

from cvmh.models.weights.catalogue import CATALOGUE, PublishedFile
from cvmh.models.weights.finding import find_weights, weights_folder
from cvmh.models.weights.loading import load_weights
from cvmh.models.weights.reading import WeightsFile, read_weights
from cvmh.models.weights.report import LoadReport
from cvmh.models.weights.starting import start_from_published

__all__ = [
    "CATALOGUE",
    "LoadReport",
    "PublishedFile",
    "WeightsFile",
    "find_weights",
    "load_weights",
    "read_weights",
    "start_from_published",
    "weights_folder",
]
