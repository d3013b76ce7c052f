"""Scores of several protocols side by side, as text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvmh.metrics import Scores

WIDTH = 20
PAIR = 18


def score_lines(scores: Sequence["Scores"]) -> list[str]:
    """Return a table with a pair of columns a protocol, and what each protocol is below it.

    Classes that a protocol leaves out of its means stand in parentheses.
    """
    first = scores[0]
    lines = [
        _line("", [entry.protocol for entry in scores]),
        _line("class", ["    IoU      F1"] * len(scores)) + "        pixels",
    ]
    for name, row in first.classes.items():
        pairs = [_class_pair(entry, name) for entry in scores]
        lines.append(_line(name, pairs) + f"  {row.pixels:>12,}")
    lines.append(_line("mean", [_pair(entry.miou, entry.mf1) for entry in scores]))
    widths = sorted({entry.boundary.width for entry in scores if entry.boundary is not None})
    for width in widths:
        found = [entry.boundary for entry in scores]
        pairs = ["" if b is None else _pair(b.miou, b.mf1) for b in found]
        lines.append(_line(f"borders, {width} px", pairs))
    lines.append(_line("overall accuracy", [_number(entry.oa) for entry in scores]))
    lines.append(_line("kappa", [_number(entry.kappa) for entry in scores]))
    for entry in scores:
        lines.append(f"protocol {entry.protocol}, split {entry.split}: {entry.facts.sentence}")
        if entry.facts.note:
            lines.append(f"  note: {entry.facts.note}")
    return lines


def _line(head: str, cells: Sequence[str]) -> str:
    return f"{head:<{WIDTH}}" + "".join(f"{cell:>{PAIR}}" for cell in cells)


def _class_pair(scores: "Scores", name: str) -> str:
    row = scores.classes[name]
    if name not in scores.facts.left_out:
        return _pair(row.iou, row.f1)
    return f"({_pair(row.iou, row.f1)})"


def _pair(one: float | None, other: float | None) -> str:
    return f"{_number(one)}  {_number(other)}"


def _number(value: float | None) -> str:
    return "     -" if value is None else f"{value:.4f}"
