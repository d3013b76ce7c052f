"""How far the confidence of predictions is their accuracy: reliability, and its one-number sums.

A pixel's confidence is the score of its predicted class. Predictions are calibrated when, of all
pixels with a confidence of 0.8, four in five are right. Bins are those of Guo et al. 2017 (On
Calibration of Modern Neural Networks): equal in width, open below and closed above.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cvmh.errors import ShapeError

BINS = 15
EDGES = np.arange(BINS + 1) / BINS
# A score of 1 in a raster of 8 bits.
FULL_LEVEL = 254


class Reliability(BaseModel):
    """Pixels by their confidence, in bins of equal width from 0 to 1.

    ``counts`` are the pixels of each bin and ``hits`` those that are right; ``confidence`` is
    their mean confidence and ``accuracy`` the share that is right, None in an empty bin. ``ece``
    is the mean distance between the two, weighted by the pixels of the bins, and ``mce`` the
    largest one; None without pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: tuple[int, ...]
    hits: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    ece: float | None
    mce: float | None

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return sum(self.counts)


class Calibration(BaseModel):
    """What dividing the scores before the softmax by one temperature did, on a validation split.

    ``before`` and ``after`` are the reliabilities with temperature 1 and with the fitted one,
    ``nll_before`` and ``nll_after`` the mean negative log of the scores of the true classes, all
    over the same pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    nll_before: float
    nll_after: float
    before: Reliability
    after: Reliability

    @property
    def pixels(self) -> int:
        """The number of labelled pixels that the temperature was fitted to."""
        return self.after.pixels


class ReliabilityCounter:
    """Adds up pixels by predicted class and confidence; its size does not depend on their number.

    Args:
        num_classes: the number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros((num_classes, BINS), dtype=np.int64)
        self._hits = np.zeros((num_classes, BINS), dtype=np.int64)
        self._sums = np.zeros((num_classes, BINS), dtype=np.float64)

    def add(
        self,
        labels: NDArray[np.integer[Any]],
        predictions: NDArray[np.integer[Any]],
        confidence: NDArray[np.floating[Any]],
    ) -> None:
        """Add pixels of one shape; those whose label is not a class id (255) do not count.

        Args:
            labels: class ids of the ground truth.
            predictions: class ids.
            confidence: the scores of the predicted classes, 0..1.

        Raises:
            ShapeError: the shapes differ, or a labelled pixel has no class or no score 0..1.
        """
        truth, guess, scores = self._labelled(labels, predictions, confidence)
        # Written so that NaN is refused too.
        if not np.all((scores >= 0) & (scores <= 1)):
            raise ShapeError("the confidence of every labelled pixel must be a score 0..1")
        places = np.searchsorted(EDGES, scores.astype(np.float64), side="left") - 1
        self._count(guess, np.maximum(places, 0), truth == guess, scores)

    def add_levels(
        self,
        labels: NDArray[np.integer[Any]],
        predictions: NDArray[np.integer[Any]],
        levels: NDArray[np.uint8],
    ) -> None:
        """Add pixels whose confidence was rounded to one of 255 levels.

        A level stands for all scores that round to it. It is binned by the middle of these, which
        at both ends is not the level itself: 254 stands for scores from 253.5 / 254 to 1.

        Args:
            labels: class ids of the ground truth.
            predictions: class ids.
            levels: scores of the predicted classes times 254, rounded.

        Raises:
            ShapeError: the shapes differ, or a labelled pixel has no class or no level 0..254.
        """
        truth, guess, found = self._labelled(labels, predictions, levels)
        if found.size and found.max() > FULL_LEVEL:
            raise ShapeError(
                f"the confidence of every labelled pixel must be 0..{FULL_LEVEL}, got {found.max()}"
            )
        num_levels = FULL_LEVEL + 1
        shape = (len(self._counts), num_levels, 2)
        pairs = (guess * num_levels + found) * 2 + (truth == guess)
        counts = np.bincount(pairs, minlength=int(np.prod(shape))).reshape(shape)
        low = np.maximum(np.arange(num_levels) - 0.5, 0) / FULL_LEVEL
        high = np.minimum(np.arange(num_levels) + 0.5, FULL_LEVEL) / FULL_LEVEL
        middles = (low + high) / 2
        places = np.searchsorted(EDGES, middles, side="left") - 1
        for level, place in enumerate(places.tolist()):
            pixels = counts[:, level].sum(axis=1)
            self._counts[:, place] += pixels
            self._hits[:, place] += counts[:, level, 1]
            self._sums[:, place] += pixels * middles[level]

    def overall(self) -> Reliability:
        """Return the reliability of all pixels together."""
        return _summed(self._counts.sum(0), self._hits.sum(0), self._sums.sum(0))

    def by_class(self) -> tuple[Reliability, ...]:
        """Return the reliability of the pixels that are predicted as each class, by its id."""
        parts = zip(self._counts, self._hits, self._sums, strict=True)
        return tuple(_summed(*part) for part in parts)

    def _labelled(
        self,
        labels: NDArray[np.integer[Any]],
        predictions: NDArray[np.integer[Any]],
        values: NDArray[Any],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        if not labels.shape == predictions.shape == values.shape:
            raise ShapeError(
                "labels, predictions and confidence must have one shape, got "
                f"{labels.shape}, {predictions.shape} and {values.shape}"
            )
        num_classes = len(self._counts)
        counted = (labels >= 0) & (labels < num_classes)
        guess = predictions[counted].astype(np.int64)
        if guess.size and not 0 <= guess.min() <= guess.max() < num_classes:
            raise ShapeError(
                f"every labelled pixel must have a predicted class 0..{num_classes - 1}, got "
                f"{guess.min()}..{guess.max()}"
            )
        return labels[counted].astype(np.int64), guess, values[counted]

    def _count(
        self,
        guess: NDArray[np.int64],
        places: NDArray[np.int64],
        is_hit: NDArray[np.bool_],
        scores: NDArray[np.floating[Any]],
    ) -> None:
        cells = guess * BINS + places
        size, shape = self._counts.size, self._counts.shape
        self._counts += np.bincount(cells, minlength=size).reshape(shape)
        self._hits += np.bincount(cells[is_hit], minlength=size).reshape(shape)
        self._sums += np.bincount(cells, scores, minlength=size).reshape(shape)


def _summed(
    counts: NDArray[np.int64], hits: NDArray[np.int64], sums: NDArray[np.float64]
) -> Reliability:
    confidence = _shares(sums, counts)
    accuracy = _shares(hits, counts)
    gaps = [
        (abs(sure - right), count)
        for sure, right, count in zip(confidence, accuracy, counts.tolist(), strict=True)
        if sure is not None and right is not None
    ]
    total = int(counts.sum())
    return Reliability(
        counts=tuple(counts.tolist()),
        hits=tuple(hits.tolist()),
        confidence=confidence,
        accuracy=accuracy,
        ece=sum(gap * count for gap, count in gaps) / total if total else None,
        mce=max(gap for gap, _ in gaps) if total else None,
    )


def _shares(parts: NDArray[Any], wholes: NDArray[np.int64]) -> tuple[float | None, ...]:
    pairs: Sequence[tuple[Any, int]] = list(zip(parts.tolist(), wholes.tolist(), strict=True))
    return tuple(part / whole if whole else None for part, whole in pairs)
