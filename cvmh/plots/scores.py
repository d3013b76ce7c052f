"""Diagrams of scores: bars of classes, reliability, estimated areas, training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cvmh.page import Html
from cvmh.plots.training import draw_curves
from cvmh.plots.vector import BLUE, INK, ORANGE, diagram_style, to_svg

WIDTH = 8.6
LONGEST_NAME = 30


@dataclass(frozen=True, kw_only=True)
class ClassBar:
    """One class of :func:`class_bars`: its name, its colour, its scores 0..1."""

    name: str
    rgb: tuple[int, int, int]
    iou: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class IntervalBar:
    """One class of :func:`interval_bars`; ``low`` to ``high`` is the interval of the estimate.

    ``true`` is the true value, where it is known.
    """

    name: str
    rgb: tuple[int, int, int]
    mapped: float
    estimate: float | None
    low: float | None
    high: float | None
    true: float | None = None


def class_bars(bars: Sequence[ClassBar], *, mean: float | None, name: str) -> Html:
    """Draw IoU (full) and F1 (pale) of each class in its colour, the mean IoU as a line."""
    with diagram_style():
        figure = Figure(figsize=(WIDTH, 0.7 + 0.4 * len(bars)), layout="constrained")
        axis = figure.subplots()
        for row, bar in enumerate(bars):
            for shift, value, alpha in ((-0.19, bar.iou, 1.0), (0.19, bar.f1, 0.45)):
                length = 100 * (value or 0)
                axis.barh(row + shift, length, 0.36, color=(*_rgb(bar.rgb), alpha), edgecolor=INK)
                axis.patches[-1].set_linewidth(0.6)
                text = "-" if value is None else f"{length:.1f}"
                axis.text(length + 0.8, row + shift, text, va="center", fontsize=8)
        if mean is not None:
            axis.axvline(100 * mean, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        _name_rows(axis, [bar.name for bar in bars])
        axis.set_xlim(0, 106)
        axis.set_xticks(range(0, 101, 20))
        axis.set_xlabel("upper bar IoU, lower pale bar F1, dashed line mean IoU (%)")
        axis.grid(axis="x")
        alt = "; ".join(f"{bar.name}: IoU {_say(bar.iou)}, F1 {_say(bar.f1)}" for bar in bars)
        return to_svg(figure, name=name, alt=f"Bars of IoU and F1 in percent. {alt}")


def reliability_diagram(
    confidence: Sequence[float | None],
    accuracy: Sequence[float | None],
    counts: Sequence[int],
    *,
    name: str,
    alt: str,
) -> Html:
    """Draw the accuracy of pixels over their confidence, and how many pixels each bin has.

    Args:
        confidence: the mean confidence of each bin, 0..1; the bins are equal in width.
        accuracy: the share that is right of each bin, 0..1.
        counts: the pixels of each bin.
        name: goes before the ids of the SVG.
        alt: what the diagram shows, in words.
    """
    with diagram_style():
        figure = Figure(figsize=(4.6, 4.6), layout="constrained")
        axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        edges = np.linspace(0, 1, len(counts) + 1)
        known = [
            (sure, right)
            for sure, right in zip(confidence, accuracy, strict=True)
            if sure is not None and right is not None
        ]
        axis.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        for sure, right in known:
            axis.plot([sure, sure], [sure, right], color=ORANGE, linewidth=4, solid_capstyle="butt")
        axis.plot(*np.array(known).reshape(-1, 2).T, color=BLUE, marker="o", markersize=4)
        axis.set_ylim(0, 1.02)
        axis.set_ylabel("share that is right")
        shares = np.array(counts) / max(1, sum(counts)) * 100
        below.bar(edges[:-1], shares, np.diff(edges) * 0.9, align="edge", color=BLUE)
        below.set_ylabel("pixels (%)")
        below.set_xlabel("confidence")
        below.set_xlim(0, 1)
        for part in (axis, below):
            part.grid(axis="y")
        return to_svg(figure, name=name, alt=alt)


def interval_bars(bars: Sequence[IntervalBar], *, unit: str, name: str) -> Html:
    """Draw mapped areas as bars, estimates and intervals as whiskers, true areas as diamonds."""
    with diagram_style():
        figure = Figure(figsize=(WIDTH, 0.8 + 0.34 * len(bars)), layout="constrained")
        axis = figure.subplots()
        for row, bar in enumerate(bars):
            axis.barh(row, bar.mapped, 0.62, color=_rgb(bar.rgb), edgecolor=INK, linewidth=0.6)
            if bar.low is not None and bar.high is not None:
                # A pale rim keeps the whisker apart from a bar of any colour.
                for colour, width in (("white", 4.5), ("black", 2.0)):
                    axis.plot([bar.low, bar.high], [row, row], color=colour, linewidth=width)
            if bar.estimate is not None:
                axis.plot(bar.estimate, row, "o", color="black", markeredgecolor="white")
            if bar.true is not None:
                axis.plot(bar.true, row, "D", color=ORANGE, markeredgecolor="black", markersize=5)
        _name_rows(axis, [bar.name for bar in bars])
        axis.set_xlim(left=0)
        told = f"area ({unit}): bar mapped, dot and line estimated with 95 % interval"
        axis.set_xlabel(told + (", diamond labelled" if any(bar.true for bar in bars) else ""))
        axis.grid(axis="x")
        alt = f"Bars of the mapped area of each class in {unit}, with the estimated area."
        return to_svg(figure, name=name, alt=alt)


def training_diagram(rows: Sequence[Mapping[str, float]], *, name: str) -> Html:
    """Draw the losses and the validation scores of a training; see :func:`curves`."""
    with diagram_style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        draw_curves(figure, rows)
        alt = "Losses (left) and validation scores (right) of the training, epoch by epoch."
        return to_svg(figure, name=name, alt=alt)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axis.set_ylim(len(names) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)


def _shortened(name: str) -> str:
    """Leave out the middle of a long name: names of a kind differ at the end."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}\u2026{name[-half:]}"


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _say(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f}"
