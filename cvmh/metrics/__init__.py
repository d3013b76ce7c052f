"""Integer counts of labels and predictions, and the scores made of them."""

from cvmh.metrics.boundary import (
    BoundaryClassScore,
    BoundaryCounts,
    BoundaryScores,
    count_boundaries,
    near_other_class,
    score_boundaries,
)
from cvmh.metrics.confusion import ClassScore, Confusion, Scores, count_confusion, score
from cvmh.metrics.facts import Facts
from cvmh.metrics.protocols import PROTOCOLS, Protocol, Rule, find_protocol

__all__ = [
    "PROTOCOLS",
    "BoundaryClassScore",
    "BoundaryCounts",
    "BoundaryScores",
    "ClassScore",
    "Confusion",
    "Facts",
    "Protocol",
    "Rule",
    "Scores",
    "count_boundaries",
    "count_confusion",
    "find_protocol",
    "near_other_class",
    "score",
    "score_boundaries",
]
