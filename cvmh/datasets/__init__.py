"""Labelled images: known layouts, samples, augmentation, synthetic scenes."""

from cvmh.datasets.folder import open_folder
from cvmh.datasets.known import KNOWN, KnownSet, Survey, open_known, survey
from cvmh.datasets.labelled import LabelEncoding, LabelledImage, SegmentationData
from cvmh.datasets.loading import TrainingData, prepare_training
from cvmh.datasets.opening import find_known, open_data
from cvmh.datasets.summary import DataSummary, summarise

__all__ = [
    "KNOWN",
    "DataSummary",
    "KnownSet",
    "LabelEncoding",
    "LabelledImage",
    "SegmentationData",
    "Survey",
    "TrainingData",
    "find_known",
    "open_data",
    "open_folder",
    "open_known",
    "prepare_training",
    "summarise",
    "survey",
]
