"""Polygons of a finished mask, for a geographic information system."""

from cvmh.geo.vectors.targets import check_vectors
from cvmh.geo.vectors.writing import VectorSummary, write_vectors

__all__ = ["VectorSummary", "check_vectors", "write_vectors"]
