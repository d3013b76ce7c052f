"""The doctor: says what is wrong with a data set, where, and what to do."""

from cvmh.datasets.doctor.examine import CHECKS, Diagnosis, examine
from cvmh.datasets.doctor.finding import Finding, Place
from cvmh.datasets.doctor.text import to_json, to_text

__all__ = ["CHECKS", "Diagnosis", "Finding", "Place", "examine", "to_json", "to_text"]
