"""Labelled images: known layouts, samples, augmentation, synthetic scenes."""

from cvmh.datasets.folder import open_folder
from cvmh.datasets.labelled import LabelEncoding, LabelledImage, SegmentationData
from cvmh.datasets.loading import TrainingData, open_data, prepare_training
from cvmh.datasets.summary import DataSummary, summarise

__all__ = [
    "DataSummary",
    "LabelEncoding",
    "LabelledImage",
    "SegmentationData",
    "TrainingData",
    "open_data",
    "open_folder",
    "prepare_training",
    "summarise",
]
