"""Integer counts of labels and predictions, and the scores made of them."""

from cvmh.metrics.confusion import ClassScore, Confusion, Scores, count_confusion, score

__all__ = ["ClassScore", "Confusion", "Scores", "count_confusion", "score"]
