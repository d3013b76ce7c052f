"""The run that a bundle came from: its curves and its settings."""

from collections.abc import Mapping, Sequence

from cvmh.page import Html, element, figure, folded, section
from cvmh.plots import training_diagram


def run_section(rows: Sequence[Mapping[str, float]], settings: str) -> Html:
    """Return the curves of a training, if there are any, and its settings, if known."""
    parts = []
    if rows:
        caption = "Losses and validation scores by epoch; validation crops, not whole scenes"
        parts.append(figure(training_diagram(rows, name="curves"), caption=caption))
    if settings:
        parts.append(folded("settings of the run (config.yaml)", element("pre", settings)))
    return section("Training", *parts, anchor="training")
