"""Areas of classes: as mapped, as estimated with their intervals, and as labelled."""

import numpy as np

from cvmh.classes import ClassTable
from cvmh.metrics import Scores
from cvmh.metrics.areas import AreaEstimates, AreaSample, Interval, estimate_areas
from cvmh.page import Html, element, figure, joined, section, swatch, table
from cvmh.plots import IntervalBar, interval_bars
from cvmh.report.numbers import decimal, percent

# Square metres of a hectare.
HECTARE = 10_000


def area_section(
    scores: Scores, classes: ClassTable, sample: AreaSample, *, gsd: float | None
) -> Html:
    """Return the areas that a sample lets expect where the mask says so, beside the true ones.

    The labelled pixels of the split are taken for a map whose truth is not known. Their labels then
    show how good the estimates are.

    Args:
        scores: of one protocol; its confusion gives mapped and labelled pixels.
        classes: for names and colours.
        sample: the counts of the validation split that the bundle carries.
        gsd: metres a pixel; None counts pixels.
    """
    confusion = np.array(scores.confusion, dtype=np.float64)
    factor, unit = (1.0, "pixels") if gsd is None else (gsd**2 / HECTARE, "ha")
    mapped, labelled = confusion.sum(axis=0) * factor, confusion.sum(axis=1) * factor
    estimates = estimate_areas(mapped, sample.counts(len(classes)), classes.names)
    text = (
        f"Estimated from the mistakes on split {sample.split} of the bundle's training, in "
        f"{estimates.clusters} clusters; the labelled areas of split {scores.split} show whether "
        "the intervals hold."
    )
    if sample.split == scores.split:
        text += " It is the same split here, so estimates and labels cannot but agree."
    notes = joined(element("p", note, attributes={"class": "quiet"}) for note in estimates.notes)
    return section(
        "Areas",
        element("p", text),
        figure(
            interval_bars(_bars(estimates, classes, labelled.tolist()), unit=unit, name="areas"),
            caption="Area of each class: as mapped, as estimated from that, and as labelled",
        ),
        _table(estimates, classes, labelled.tolist(), unit=unit),
        notes,
        anchor="areas",
    )


def _bars(
    estimates: AreaEstimates, classes: ClassTable, labelled: list[float]
) -> list[IntervalBar]:
    return [
        IntervalBar(
            name=entry.name,
            rgb=entry.rgb,
            mapped=found.mapped,
            estimate=found.area.estimate,
            low=found.area.low,
            high=found.area.high,
            true=area,
        )
        for entry, found, area in zip(classes, estimates.classes.values(), labelled, strict=True)
    ]


def _table(
    estimates: AreaEstimates, classes: ClassTable, labelled: list[float], *, unit: str
) -> Html:
    digits = 0 if unit == "pixels" else 2
    head = [
        "class",
        f"mapped {unit}",
        f"estimated {unit}",
        "95 % interval",
        f"labelled {unit}",
        "user's accuracy %",
        "producer's accuracy %",
    ]
    rows = [
        [
            joined([swatch(entry.rgb), entry.name]),
            decimal(found.mapped, digits),
            decimal(found.area.estimate, digits),
            _between(found.area, digits),
            decimal(area, digits),
            percent(found.users_accuracy.estimate),
            percent(found.producers_accuracy.estimate),
        ]
        for entry, found, area in zip(classes, estimates.classes.values(), labelled, strict=True)
    ]
    return table(head, rows, caption=f"Areas of the labelled pixels in {unit}")


def _between(found: Interval, digits: int) -> str:
    if found.low is None or found.high is None:
        return "-"
    return f"{decimal(found.low, digits)} to {decimal(found.high, digits)}"
