"""Areas of an evaluated split: as mapped, as estimated, and as labelled, which is the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.metrics import Scores
from cvmh.metrics.areas import AreaEstimates, estimate_areas
from cvmh.models.bundle import BundleCard
from cvmh.report.evaluation import Evaluation

WIDTH = 20
# Square metres of the units that areas are shown in.
UNITS = {"km2": 1e6, "ha": 1e4, "m2": 1.0}
# Of a unit there should be so many, so that small classes are seen too.
ENOUGH = 100


@dataclass(frozen=True, kw_only=True)
class SplitAreas:
    """Areas of the labelled pixels of a split, in ``unit``: "m2", or "pixels" without a scale.

    ``sample_split`` is what the estimates rest on, and ``extent`` says how much of it; where the
    sample is of the images that are scored (``is_same``; names of splits do not tell), they agree
    with the labels and show nothing.
    """

    unit: str
    protocol: str
    split: str
    is_same: bool
    sample_split: str
    extent: str
    labelled: dict[str, float]
    estimates: AreaEstimates

    def to_json(self) -> dict[str, Any]:
        """Return the areas as plain containers."""
        return {
            "unit": self.unit,
            "sample_split": self.sample_split,
            "extent": self.extent,
            "labelled": self.labelled,
            **self.estimates.to_json(),
        }


def estimate_evaluation(evaluation: Evaluation, card: BundleCard) -> SplitAreas | None:
    """Estimate the areas by the first protocol of full labels; None without it or a sample."""
    for scores, ground in zip(evaluation.scores, evaluation.grounds, strict=True):
        if scores.facts.labels == "full":
            return estimate_split(scores, card, ground=ground)
    return None


def estimate_split(
    scores: Scores, card: BundleCard, *, ground: NDArray[np.float64] | None
) -> SplitAreas | None:
    """Estimate the areas of a split from its mask and a bundle's sample.

    None without a sample, and where the labels are eroded: they lack ground along every border.

    The labels of the split enter nothing but ``labelled``, so they show how good the estimates are.

    Args:
        scores: of one protocol; its confusion gives mapped and labelled pixels.
        card: of the bundle that was evaluated.
        ground: square metres of the cells of the confusion; None counts pixels.
    """
    if card.area_sample is None or scores.facts.labels != "full":
        return None
    cells = np.array(scores.confusion, dtype=np.float64) if ground is None else ground
    names = card.classes.names
    sample = card.area_sample.counts(len(names))
    labelled = cells.sum(axis=1).tolist()
    return SplitAreas(
        unit="pixels" if ground is None else "m2",
        protocol=scores.protocol,
        split=scores.split,
        is_same=scores.facts.seen_in == "selection",
        sample_split=card.area_sample.split,
        extent=card.area_sample.extent,
        labelled=dict(zip(names, labelled, strict=True)),
        estimates=estimate_areas(cells.sum(axis=0), sample, names),
    )


def choose_unit(areas: SplitAreas) -> tuple[float, str]:
    """Return the unit that areas are shown in, and how much of their own one it is."""
    if areas.unit != "m2":
        return 1.0, areas.unit
    total = sum(areas.labelled.values())
    unit = next((name for name, size in UNITS.items() if total >= ENOUGH * size), "m2")
    return UNITS[unit], unit


def told_areas(evaluation: Evaluation, card: BundleCard) -> Iterator[str]:
    """Yield the areas of an evaluation in lines of text, or why there are none."""
    areas = estimate_evaluation(evaluation, card)
    if areas is not None:
        yield from area_lines(areas)
    elif card.area_sample is not None:
        yield (
            "no areas: these labels leave out the pixels along borders of classes; areas need a "
            "protocol of full labels, such as --protocol full where the data set has them"
        )


def area_lines(areas: SplitAreas) -> Iterator[str]:
    """Yield a table of areas in lines of text, and notes below it."""
    size, unit = choose_unit(areas)
    digits = 0 if unit == "pixels" else 2
    found = areas.estimates

    def cell(value: float | None) -> str:
        return f"{'-' if value is None else f'{value / size:,.{digits}f}':>14}"

    yield f"areas in {unit}, protocol {areas.protocol}, split {areas.split}"
    heads = ("mapped", "estimated", "std. error", "95% from", "to", "labelled")
    yield f"{'class':<{WIDTH}}" + "".join(f"{head:>14}" for head in heads)
    for name, row in found.classes.items():
        area = row.area
        values = (row.mapped, area.estimate, area.error, area.low, area.high, areas.labelled[name])
        yield f"{name:<{WIDTH}}" + "".join(map(cell, values))
    yield (
        f"estimated from split {areas.sample_split} of the bundle's training, "
        f"{areas.extent}" + (": the same split, so this is no test" if areas.is_same else "")
    )
    for note in found.notes:
        yield f"  note: {note}"
