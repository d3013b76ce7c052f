"""How far the network's confidence can be believed."""

from collections.abc import Mapping

from cvmh.metrics.calibration import Calibration, Reliability
from cvmh.page import Html, element, figure, joined, section, table
from cvmh.plots import reliability_diagram
from cvmh.report.numbers import decimal, percent


def reliability_section(
    found: Reliability | None,
    *,
    split: str,
    calibration: Calibration | None,
    temperature: float,
    by_class: Mapping[str, Reliability],
) -> Html:
    """Return the reliability of the evaluated pixels, and what the temperature did.

    Args:
        found: of the evaluated split, with the bundle's temperature; None if it was not counted.
        split: the evaluated split.
        calibration: how the temperature was fitted, if the bundle tells.
        temperature: of the bundle.
        by_class: of the pixels that are predicted as each class, if they were counted.
    """
    parts: list[Html] = []
    if found is not None and found.pixels:
        parts.append(_diagram(found, name="evaluated", where=f"split {split}"))
    elif calibration is not None:
        parts.append(_diagram(calibration.after, name="evaluated", where=calibration.split))
    rows = _rows(found, split, calibration, temperature)
    head = ["split", "temperature", "ECE %", "largest gap %", "mean NLL"]
    caption = "Expected calibration error (ECE): lower is better"
    note = _note(calibration, temperature)
    content = [table(head, rows, caption=caption), element("p", note)]
    if by_class:
        content.append(_class_table(by_class))
    parts.append(element("div", *content))
    attributes = {"class": "beside"}
    return section(
        "Reliability", element("div", joined(parts), attributes=attributes), anchor="reliability"
    )


def _class_table(by_class: Mapping[str, Reliability]) -> Html:
    rows = [
        [name, percent(_mean_confidence(state)), percent(_hit_share(state)), percent(state.ece)]
        for name, state in by_class.items()
    ]
    head = ["predicted as", "mean confidence %", "right %", "ECE %"]
    return table(head, rows, caption="The same of the pixels that are predicted as each class")


def _mean_confidence(state: Reliability) -> float | None:
    total = sum(
        count * sure
        for count, sure in zip(state.counts, state.confidence, strict=True)
        if sure is not None
    )
    return total / state.pixels if state.pixels else None


def _hit_share(state: Reliability) -> float | None:
    return sum(state.hits) / state.pixels if state.pixels else None


def _diagram(found: Reliability, *, name: str, where: str) -> Html:
    alt = f"Reliability diagram of {where}: expected calibration error {percent(found.ece)} %."
    drawn = reliability_diagram(found.confidence, found.accuracy, found.counts, name=name, alt=alt)
    caption = f"How often pixels are right, by confidence, {where}; bars are the gaps"
    return figure(drawn, caption=caption)


def _rows(
    found: Reliability | None, split: str, calibration: Calibration | None, temperature: float
) -> list[list[str]]:
    rows = []
    if calibration is not None:
        where = calibration.split
        for name, scale, state, loss in (
            (f"{where}, before", 1.0, calibration.before, calibration.nll_before),
            (f"{where}, after", temperature, calibration.after, calibration.nll_after),
        ):
            rows.append(_row(name, scale, state, decimal(loss)))
    if found is not None:
        rows.append(_row(f"{split}, evaluated", temperature, found, "-"))
    return rows


def _row(name: str, temperature: float, state: Reliability, loss: str) -> list[str]:
    gaps = [percent(state.ece), percent(state.mce)]
    return [name, decimal(temperature), *gaps, loss]


def _note(calibration: Calibration | None, temperature: float) -> str:
    if calibration is None:
        return (
            "The bundle carries no calibration: its scores are the network's own "
            f"(temperature {temperature:g})."
        )
    verb = "softened" if temperature > 1 else "sharpened"
    return (
        f"A temperature of {decimal(temperature)} {verb} the scores; it was fitted to "
        f"{calibration.pixels:,} pixels of split {calibration.split} after training, and changes "
        "no mask."
    )
