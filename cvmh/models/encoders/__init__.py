"""Encoders of the Mamba family, the table that names them, and classifiers made of them."""

from cvmh.models.encoders.classifier import Classifier
from cvmh.models.encoders.encoder import Encoder
from cvmh.models.encoders.table import ENCODERS, FAMILIES, create_encoder

__all__ = ["ENCODERS", "FAMILIES", "Classifier", "Encoder", "create_encoder"]
