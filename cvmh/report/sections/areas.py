"""Areas of classes: as mapped, as estimated with their intervals, and as labelled."""

from collections.abc import Sequence
from typing import NamedTuple

from cvmh.classes import ClassTable
from cvmh.metrics.areas import AreaEstimates, ClassArea
from cvmh.page import Html, element, figure, joined, section, swatch, table
from cvmh.plots import IntervalBar, interval_bars
from cvmh.report.areas import SplitAreas, choose_unit
from cvmh.report.numbers import decimal, percent


def area_section(areas: SplitAreas, classes: ClassTable) -> Html:
    """Return the areas that a bundle's sample lets expect, beside those that are labelled.

    Args:
        areas: of a split.
        classes: for the colours.
    """
    size, unit = choose_unit(areas)
    unit = unit.replace("2", "\u00b2")
    rows = [
        _scaled(found, areas.labelled[name], 1 / size)
        for name, found in areas.estimates.classes.items()
    ]
    text = (
        f"Estimated from the mistakes on split {areas.sample_split} of the bundle's training, in "
        f"{areas.extent}; the labelled areas of split {areas.split} show whether the intervals "
        "hold."
    )
    if areas.is_same:
        text += " It is the same split here, so estimates and labels cannot but agree."
    notes = (element("p", note, attributes={"class": "quiet"}) for note in areas.estimates.notes)
    return section(
        "Areas",
        element("p", text),
        figure(
            interval_bars(_bars(rows, classes), unit=unit, name="areas"),
            caption="Area of each class: as mapped, as estimated from that, and as labelled",
        ),
        _table(rows, areas.estimates, classes, unit=unit),
        *notes,
        anchor="areas",
    )


class _Row(NamedTuple):
    """The areas of a class in the unit that is shown."""

    mapped: float
    estimate: float | None
    low: float | None
    high: float | None
    labelled: float


def _scaled(found: ClassArea, labelled: float, factor: float) -> _Row:
    estimate, low, high = (
        None if value is None else float(value) * factor
        for value in (found.area.estimate, found.area.low, found.area.high)
    )
    return _Row(found.mapped * factor, estimate, low, high, labelled * factor)


def _bars(rows: Sequence[_Row], classes: ClassTable) -> list[IntervalBar]:
    return [
        IntervalBar(
            name=entry.name,
            rgb=entry.rgb,
            mapped=row.mapped,
            estimate=row.estimate,
            low=row.low,
            high=row.high,
            true=row.labelled,
        )
        for entry, row in zip(classes, rows, strict=True)
    ]


def _table(
    rows: Sequence[_Row], estimates: AreaEstimates, classes: ClassTable, *, unit: str
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
    cells = [
        [
            joined([swatch(entry.rgb), entry.name]),
            decimal(row.mapped, digits),
            decimal(row.estimate, digits),
            _between(row.low, row.high, digits),
            decimal(row.labelled, digits),
            percent(found.users_accuracy.estimate),
            percent(found.producers_accuracy.estimate),
        ]
        for entry, row, found in zip(classes, rows, estimates.classes.values(), strict=True)
    ]
    return table(head, cells, caption=f"Areas of the labelled pixels in {unit}")


def _between(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return "-"
    return f"{decimal(low, digits)} to {decimal(high, digits)}"
