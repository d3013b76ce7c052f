"""The curves of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def curves(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the curves of a training as PNG: losses on the left, validation scores on the right.

    Args:
        path: the PNG file.
        rows: one mapping an epoch with ``epoch`` and any of ``train_loss``, ``val_loss``,
            ``val_miou``, ``val_mf1``, ``val_oa``.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    draw_curves(figure, rows)
    figure.savefig(path, dpi=110, format="png")


def draw_curves(figure: Figure, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw the losses and the scores of a training, side by side, into a figure."""
    left, right = figure.subplots(1, 2)
    for axis, names in (
        (left, ("train_loss", "val_loss")),
        (right, ("val_miou", "val_mf1", "val_oa")),
    ):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.2)
        if axis.lines:
            axis.legend()
    right.set_ylim(0, 1)
