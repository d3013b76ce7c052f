"""Areas of classes with their standard errors, from a mask and a labelled sample.

A mask that takes one class for another has wrong areas, and counting its pixels does not tell how
wrong. Olofsson et al. 2014 (Good practices for estimating area and assessing accuracy of land
change, Remote Sensing of Environment 148, 42-57) estimate the areas from a sample instead, in
which mask and label are compared: with ``W_i`` the share of the mask that is class i, and ``n_ij``
the sampled pixels that are mapped as i and labelled j (their equations 4 to 10)::

    p_ij = W_i n_ij / n_i.        area of j = A sum_i p_ij
    var(area of j) = A^2 sum_i W_i^2 (n_ij / n_i.) (1 - n_ij / n_i.) / (n_i. - 1)

What is a sample? The variance above is that of pixels which were drawn one by one. The pixels of
validation images are not: neighbours are right and wrong together, and a million of them may tell
no more than thirty. So the pixels of a place, or of an image, are one *cluster* here, and the
variance is that between clusters, by the linearised statistic (Taylor series; Saerndal, Swensson
and Wretman 1992, Model Assisted Survey Sampling, section 5.5)::

    var(t) = m / (m - 1) sum_c u_c^2        u_c = sum_ij n_ij^c dt / dn_ij

over m clusters c. With one pixel a cluster this is the formula above but for n_i. in place of
n_i. - 1 (a test shows it). It counts what differs between clusters, whatever the number of pixels.
Intervals take Student's t with one degree of freedom less than there are clusters that say
something about a figure.

The estimates hold for ground of which the sample is a fair picture: there the classes must be
confused as they are in the sample.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from cvmh.errors import ShapeError

# A class needs as many sampled pixels, in as many clusters, to say how much they vary.
FEWEST = 2
# Classes without a sample may cover this share of a mask; were it more, no area could be told.
MOST_UNSAMPLED = 0.01
# From such a difference in the mix of classes on, the sample is no fair picture of the ground.
MOST_SHIFT = 0.2
# Half of what a 95 % interval leaves out, and the normal distribution's factor for it.
TAIL = 0.025
_NORMAL = float(ndtri(1 - TAIL))
# Shares that differ by less are the same but for rounding.
NOTHING = 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate, its standard error, and its 95 % confidence interval; None where unknown."""

    estimate: float | None
    error: float | None
    low: float | None
    high: float | None


UNKNOWN = Interval(estimate=None, error=None, low=None, high=None)


@dataclass(frozen=True, kw_only=True)
class ClassArea:
    """One class: its area in the mask, its estimated area, and how far the mask can be trusted.

    ``users_accuracy`` is the share of its mapped area that is right (precision),
    ``producers_accuracy`` the share of its true area that is mapped as it (recall).
    """

    mapped: float
    area: Interval
    users_accuracy: Interval
    producers_accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class AreaEstimates:
    """Estimated areas of all classes, in the unit of the mapped ones.

    ``shift`` says how far the mask differs from the sample: half the sum of the differences of
    their mapped shares, 0 (the same mix of classes) to 1. ``notes`` say in sentences what could
    not be estimated, and why.
    """

    classes: dict[str, ClassArea]
    overall_accuracy: Interval
    pixels: int
    clusters: int | None
    shift: float | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the estimates as plain containers."""
        return asdict(self)


class _Sample(NamedTuple):
    """Counts n_ij, rows as mapped and columns as labelled: summed (K, K), by cluster (m, K, K)."""

    counts: Array
    clusters: Array | None

    @property
    def rows(self) -> Array:
        """The sampled pixels of each mapped class (K,)."""
        return self.counts.sum(axis=1)


def estimate_areas(
    mapped: NDArray[Any], sample: NDArray[Any], names: Sequence[str]
) -> AreaEstimates:
    """Estimate the areas of classes from those of a mask and a sample of labelled pixels.

    Args:
        mapped: (K,) the area of each class in the mask, in any unit.
        sample: confusion counts with rows as labels and columns as predictions, as everywhere in
            cvmh (in the paper rows are mapped classes): (K, K) of pixels that were drawn one by
            one, or (clusters, K, K) of pixels that come in clusters.
        names: of the classes.

    Raises:
        ShapeError: the shapes do not fit together, or a number is negative or not finite.
    """
    mapped, counts = np.asarray(mapped, dtype=np.float64), np.asarray(sample, dtype=np.float64)
    _check(mapped, counts, len(names))
    # From here on rows are mapped classes, as in the paper.
    counts = counts.swapaxes(-1, -2)
    is_sampled = _is_sampled(counts)
    known = counts * is_sampled[:, None]
    drawn = _Sample(known.sum(axis=0), known) if counts.ndim == 3 else _Sample(known, None)
    rest = float(mapped[~is_sampled].sum())
    whole = float(mapped.sum()) - rest
    is_known = whole > 0 and rest <= MOST_UNSAMPLED * mapped.sum()
    weights = mapped * is_sampled / whole if is_known else np.zeros(len(names))
    everything = np.ones_like(drawn.counts)
    classes = {}
    for number, name in enumerate(names):
        row, column = np.zeros_like(everything), np.zeros_like(everything)
        row[number], column[:, number] = 1, 1
        share = _ratio(drawn, weights, column, everything)
        if not drawn.counts[:, number].any():
            share = UNKNOWN
        classes[name] = ClassArea(
            mapped=float(mapped[number]),
            area=_scaled(share, whole, rest),
            users_accuracy=_ratio(drawn, row[:, 0], row * column, row),
            producers_accuracy=_ratio(drawn, weights, row * column, column),
        )
    return AreaEstimates(
        classes=classes,
        overall_accuracy=_ratio(drawn, weights, np.eye(len(names)), everything),
        pixels=int(counts.sum()),
        clusters=len(counts) if counts.ndim == 3 else None,
        shift=_shift(mapped, counts),
        notes=tuple(_notes(mapped, counts, is_sampled, names)),
    )


def _ratio(sample: _Sample, weights: Array, part: Array, whole: Array) -> Interval:
    """Return the share of the area of the cells ``whole`` that the cells ``part`` have.

    Args:
        sample: counts by mapped and labelled class.
        weights: (K,) the share of the mask that is each mapped class.
        part: (K, K) a factor for each cell.
        whole: (K, K) likewise.
    """
    if not weights.any():
        return UNKNOWN
    rows = np.maximum(sample.rows, 1)[:, None]
    areas = weights[:, None] * sample.counts / rows
    base = (whole * areas).sum()
    if base <= 0:
        return UNKNOWN
    estimate = float((part * areas).sum() / base)
    effect = (part - estimate * whole) / base
    deviation = effect - (effect * sample.counts).sum(axis=1, keepdims=True) / rows
    if sample.clusters is None:
        # A class with one sampled pixel does not come here: it is taken for not sampled.
        squares = (deviation**2 * sample.counts).sum(axis=1) / np.maximum(sample.rows - 1, 1)
        variance = float((weights**2 * squares / rows[:, 0]).sum())
        return _interval(estimate, variance, _NORMAL)
    # The sum over all clusters is 0, so these are deviations from their mean.
    steps = (sample.clusters * (deviation * weights[:, None] / rows)).sum(axis=(1, 2))
    num_clusters = len(steps)
    num_telling = int((np.abs(steps) > NOTHING).sum())
    if num_telling < FEWEST:
        return _interval(estimate, 0.0, _NORMAL)
    variance = float((steps**2).sum()) * num_clusters / (num_clusters - 1)
    return _interval(estimate, variance, float(stdtrit(num_telling - 1, 1 - TAIL)))


def _interval(estimate: float, variance: float, factor: float) -> Interval:
    """Return a share with its interval; where nothing varied, how sure it is cannot be told."""
    error = math.sqrt(variance)
    if error <= NOTHING:
        return Interval(estimate=estimate, error=None, low=None, high=None)
    low, high = max(0.0, estimate - factor * error), min(1.0, estimate + factor * error)
    return Interval(estimate=estimate, error=error, low=low, high=high)


def _scaled(share: Interval, whole: float, rest: float) -> Interval:
    """Return a share as an area; ground without a sample may or may not belong to it."""
    if share.estimate is None:
        return UNKNOWN
    if share.error is None or share.low is None or share.high is None:
        return replace(share, estimate=share.estimate * whole)
    return Interval(
        estimate=share.estimate * whole,
        error=share.error * whole,
        low=share.low * whole,
        high=share.high * whole + rest,
    )


def _is_sampled(counts: Array) -> NDArray[np.bool_]:
    """Return which mapped classes (K,) have pixels enough to say how much they vary."""
    if counts.ndim == 2:
        return np.asarray(counts.sum(axis=1) >= FEWEST)
    return np.asarray((counts.sum(axis=2) > 0).sum(axis=0) >= FEWEST)


def _shift(mapped: Array, counts: Array) -> float | None:
    """Return how far apart the mix of mapped classes is from that of the sample, 0..1."""
    rows = counts.reshape(-1, *counts.shape[-2:]).sum(axis=(0, 2))
    if not rows.any() or not mapped.any():
        return None
    return float(np.abs(mapped / mapped.sum() - rows / rows.sum()).sum() / 2)


def _notes(
    mapped: Array, counts: Array, is_sampled: NDArray[np.bool_], names: Sequence[str]
) -> Iterator[str]:
    """Yield in sentences what cannot be told, and why."""
    labelled = counts.reshape(-1, *counts.shape[-2:]).sum(axis=(0, 1))
    total = mapped.sum()
    if not total:
        yield "the mask has no pixel of any class, so there are no areas"
        return
    missing = (mapped > 0) & ~is_sampled
    share = mapped[missing].sum() / total
    unit = "clusters" if counts.ndim == 3 else "pixels"
    if missing.any():
        listed = ", ".join(name for name, is_out in zip(names, missing, strict=True) if is_out)
        yield (
            f"{share:.2%} of the mask is {listed}, which the network gave to fewer than {FEWEST} "
            f"{unit} of the sample"
            + (
                ", so no area can be estimated"
                if share > MOST_UNSAMPLED
                else "; that ground is in no estimate, only in the upper limits"
            )
        )
    for name, count in zip(names, labelled.tolist(), strict=True):
        if not count:
            yield f"no pixel of the sample is labelled {name}, so its area cannot be estimated"
    shift = _shift(mapped, counts)
    if shift is not None and shift > MOST_SHIFT:
        yield (
            f"the mask and the sample differ in their mix of classes by {shift:.0%}, so the sample "
            "is a poor picture of this ground and the intervals are likely too narrow"
        )


def _check(mapped: Array, counts: Array, num_classes: int) -> None:
    square = (num_classes, num_classes)
    if mapped.shape != (num_classes,) or counts.ndim not in (2, 3) or counts.shape[-2:] != square:
        raise ShapeError(
            f"{num_classes} classes need as many mapped areas and a sample of {num_classes} x "
            f"{num_classes} counts, got {mapped.shape} and {counts.shape}"
        )
    for what, values in (("mapped area", mapped), ("count of a sample", counts)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ShapeError(f"every {what} must be a number from 0 on")
