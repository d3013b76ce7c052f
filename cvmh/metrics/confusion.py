"""Scores from an integer confusion matrix.

Rows are labels, columns are predictions. A class that occurs in neither has no score (``None``)
and is left out of the means.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cvmh.classes import ClassTable
from cvmh.errors import ConfigError, ShapeError
from cvmh.metrics.boundary import BoundaryScores
from cvmh.metrics.facts import Facts
from cvmh.metrics.ratios import mean_of_known, ratio

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

    ``miou`` and ``mf1`` are plain means over the classes that have a score and are not left out,
    ``oa`` is the share of labelled pixels that are right, ``kappa`` is Cohen's; all are ``None``
    when nothing is labelled. ``facts`` say how they came about.
    """

    model_config = ConfigDict(frozen=True)

    protocol: str
    split: str
    miou: float | None
    mf1: float | None
    oa: float | None
    kappa: float | None = None
    classes: dict[str, ClassScore]
    confusion: list[list[int]]
    facts: Facts = Facts()
    boundary: BoundaryScores | None = None

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
    confusion: Confusion,
    classes: ClassTable,
    *,
    protocol: str = "full",
    split: str = "val",
    facts: Facts = Facts(),  # noqa: B008
    boundary: BoundaryScores | None = None,
) -> Scores:
    """Compute the scores of each class, their means, overall accuracy and kappa.

    Args:
        confusion: (classes, classes) counts, rows labels, columns predictions.
        classes: the class table, for the names.
        protocol: the name of what was counted how, kept with the scores.
        split: the name of the split that was counted.
        facts: what was counted how; names the classes that the means, or accuracy and kappa,
            leave out. Their pixels still count as errors of the classes they are taken for.
        boundary: boundary scores of the same pixels, kept with the scores.

    Raises:
        ConfigError: no class is left for the means or for the accuracy.
    """
    hits = np.diag(confusion)
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    union = labelled + predicted - hits
    rows = {
        name: ClassScore(
            iou=ratio(hits[i], union[i]),
            f1=ratio(2 * hits[i], labelled[i] + predicted[i]),
            precision=ratio(hits[i], predicted[i]),
            recall=ratio(hits[i], labelled[i]),
            pixels=int(labelled[i]),
        )
        for i, name in enumerate(classes.names)
    }
    chosen = [rows[classes.names[i]] for i in _all_but(facts.left_out, classes)]
    counted = confusion.copy()
    counted[sorted(set(range(len(classes))) - set(_all_but(facts.uncounted, classes)))] = 0
    return Scores(
        protocol=protocol,
        split=split,
        miou=mean_of_known(row.iou for row in chosen),
        mf1=mean_of_known(row.f1 for row in chosen),
        oa=ratio(np.trace(counted), counted.sum()),
        kappa=_kappa(counted),
        classes=rows,
        confusion=confusion.tolist(),
        facts=facts,
        boundary=boundary,
    )


def _all_but(left_out: Collection[str], classes: ClassTable) -> list[int]:
    kept = [i for i, name in enumerate(classes.names) if name not in left_out]
    if not kept:
        raise ConfigError(
            f"a score must be left with a class, but {', '.join(left_out)} are left out of "
            f"{', '.join(classes.names)}"
        )
    return kept


def _kappa(confusion: Confusion) -> float | None:
    """Return Cohen's kappa; in integers of any size, because squares of pixel counts are large."""
    total, hits = int(confusion.sum()), int(np.trace(confusion))
    margins = zip(confusion.sum(axis=0).tolist(), confusion.sum(axis=1).tolist(), strict=True)
    chance = sum(predicted * labelled for predicted, labelled in margins)
    return ratio(total * hits - chance, total * total - chance)
