"""Areas of an evaluated split: as mapped, as estimated, and as labelled, which is the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvmh.metrics import Scores
from cvmh.metrics.areas import AreaEstimates, estimate_areas
from cvmh.models.bundle import BundleCard

WIDTH = 20


@dataclass(frozen=True, kw_only=True)
class SplitAreas:
    """Areas of the labelled pixels of a split, in ``unit``: "m2", or "pixels" without a scale.

    ``sample_split`` is what the estimates rest on, and ``extent`` says how much of it; where it is
    the evaluated split itself, they agree with the labels and show nothing.
    """

    unit: str
    split: str
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


def estimate_split(scores: Scores, card: BundleCard, *, gsd: float | None) -> SplitAreas | None:
    """Estimate the areas of a split from its mask and a bundle's sample; None without a sample.

    The labels of the split enter nothing but ``labelled``, so they show how good the estimates are.

    Args:
        scores: of one protocol; its confusion gives mapped and labelled pixels.
        card: of the bundle that was evaluated.
        gsd: metres a pixel; None counts pixels.
    """
    if card.area_sample is None:
        return None
    confusion = np.array(scores.confusion, dtype=np.float64)
    pixel, unit = (1.0, "pixels") if gsd is None else (gsd**2, "m2")
    names = card.classes.names
    sample = card.area_sample.counts(len(names))
    labelled = (confusion.sum(axis=1) * pixel).tolist()
    return SplitAreas(
        unit=unit,
        split=scores.split,
        sample_split=card.area_sample.split,
        extent=card.area_sample.extent,
        labelled=dict(zip(names, labelled, strict=True)),
        estimates=estimate_areas(confusion.sum(axis=0) * pixel, sample, names),
    )


def area_lines(areas: SplitAreas, *, is_same: bool) -> Iterator[str]:
    """Yield a table of areas in lines of text, and notes below it.

    Args:
        areas: of a split.
        is_same: whether the sample is of the images that are scored; names of splits do not tell.
    """
    factor, unit = (1e-4, "ha") if areas.unit == "m2" else (1.0, "pixels")
    digits = 2 if unit == "ha" else 0
    found = areas.estimates

    def cell(value: float | None) -> str:
        return f"{'-' if value is None else f'{value * factor:,.{digits}f}':>14}"

    yield f"areas in {unit}, split {areas.split}"
    heads = ("mapped", "estimated", "std. error", "95% from", "to", "labelled")
    yield f"{'class':<{WIDTH}}" + "".join(f"{head:>14}" for head in heads)
    for name, row in found.classes.items():
        area = row.area
        values = (row.mapped, area.estimate, area.error, area.low, area.high, areas.labelled[name])
        yield f"{name:<{WIDTH}}" + "".join(map(cell, values))
    yield (
        f"estimated from split {areas.sample_split} of the bundle's training, "
        f"{areas.extent}" + (": the same split, so this is no test" if is_same else "")
    )
    for note in found.notes:
        yield f"  note: {note}"
