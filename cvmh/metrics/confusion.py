"""Scores from an integer confusion matrix.

Rows are labels, columns are predictions. A class that occurs in neither has no score (``None``)
and is left out of the means.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cvmh.classes import ClassTable
from cvmh.errors import ShapeError

Confusion = NDArray[np.int64]


class ClassScore(BaseModel):
    """The scores of one class, each 0..1; ``pixels`` counts its labels."""

    model_config = ConfigDict(frozen=True)

    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    pixels: int


class Scores(BaseModel):
    """What one protocol says about one split; the entry of ``scores.json``.

    ``miou`` and ``mf1`` are plain means over the classes that have a score, ``oa`` is the share of
    labelled pixels that are right; all are ``None`` when nothing is labelled.
    """

    model_config = ConfigDict(frozen=True)

    protocol: str
    split: str
    miou: float | None
    mf1: float | None
    oa: float | None
    classes: dict[str, ClassScore]
    confusion: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain containers."""
        return self.model_dump(mode="json")


def count_confusion(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]], num_classes: int
) -> Confusion:
    """Count label and prediction pairs of two id arrays of the same shape.

    Pixels whose label is not a class id (255: ignore) do not count. A labelled pixel whose
    prediction is not a class id is an error, because it would be lost silently.

    Raises:
        ShapeError: the shapes differ, or a labelled pixel has no predicted class.
    """
    if labels.shape != predictions.shape:
        raise ShapeError(
            f"labels and predictions must have one shape, got {labels.shape} and "
            f"{predictions.shape}"
        )
    counted = (labels >= 0) & (labels < num_classes)
    truth = labels[counted].astype(np.int64)
    guess = predictions[counted].astype(np.int64)
    lost = guess[(guess < 0) | (guess >= num_classes)]
    if lost.size:
        raise ShapeError(
            f"every labelled pixel must have a predicted class 0..{num_classes - 1}, got {lost[0]}"
        )
    pairs = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def score(
    confusion: Confusion, classes: ClassTable, *, protocol: str = "full", split: str = "val"
) -> Scores:
    """Compute IoU, F1, precision and recall per class, their means, and overall accuracy.

    Args:
        confusion: (classes, classes) counts, rows labels, columns predictions.
        classes: the class table, for the names.
        protocol: the name of what was counted how, kept with the scores.
        split: the name of the split that was counted.
    """
    hits = np.diag(confusion)
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    union = labelled + predicted - hits
    rows = [
        ClassScore(
            iou=_ratio(hits[i], union[i]),
            f1=_ratio(2 * hits[i], labelled[i] + predicted[i]),
            precision=_ratio(hits[i], predicted[i]),
            recall=_ratio(hits[i], labelled[i]),
            pixels=int(labelled[i]),
        )
        for i in range(len(classes))
    ]
    return Scores(
        protocol=protocol,
        split=split,
        miou=_mean([row.iou for row in rows]),
        mf1=_mean([row.f1 for row in rows]),
        oa=_ratio(hits.sum(), confusion.sum()),
        classes=dict(zip(classes.names, rows, strict=True)),
        confusion=confusion.tolist(),
    )


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
