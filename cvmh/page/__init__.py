"""Pages of HTML that stand alone, and the pictures in them."""

from cvmh.page.elements import (
    Html,
    element,
    escaped,
    figure,
    folded,
    joined,
    picture,
    scrolling,
    section,
    swatch,
    table,
    write_page,
)
from cvmh.page.png import encode_png

__all__ = [
    "Html",
    "element",
    "encode_png",
    "escaped",
    "figure",
    "folded",
    "joined",
    "picture",
    "scrolling",
    "section",
    "swatch",
    "table",
    "write_page",
]
