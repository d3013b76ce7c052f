"""Diagrams as SVG inside a page: text stays text, and takes the page's colour, light or dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cvmh.page import Html, escaped

# Stands for the colour of the page's text while matplotlib draws.
INK = "#010203"
# Told apart by all common kinds of colour blindness, on light ground and on dark (Okabe and Ito).
BLUE, ORANGE, GREEN, VERMILION = "#2f86c5", "#e69f00", "#009e73", "#d55e00"
STYLE: dict[Any, Any] = {
    # Text as text: it can be searched, read aloud, and is small.
    "svg.fonttype": "none",
    "svg.hashsalt": "cvmh",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    # A dollar sign in the name of a class is a dollar sign.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def diagram_style() -> Iterator[None]:
    """Draw in the style of the diagrams of a page, whatever the user's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def to_svg(figure: Figure, *, name: str, alt: str) -> Html:
    """Return a figure as an SVG element; call it within :func:`diagram_style`.

    Args:
        figure: what was drawn.
        name: goes before all ids in the SVG, so that several may stand in one page.
        alt: what the diagram shows, in words.
    """
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"\s*\n\s*", " ", text).replace(INK, "currentColor")
    label = f'<svg class="diagram" role="img" aria-label="{escaped(alt)}"'
    return Html(text.replace("<svg", label, 1).strip())
