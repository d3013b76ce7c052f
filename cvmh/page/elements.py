"""Pages of HTML that stand alone: no script, no other file, light or dark, on screen or paper.

Text is escaped wherever it enters a page, unless it is :class:`Html` already.
"""

import base64
import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from cvmh.page.png import encode_png

Attributes = Mapping[str, str]


class Html(str):
    """A piece of HTML, which enters a page as it is."""

    __slots__ = ()


def escaped(content: str) -> Html:
    """Return text as HTML, also inside quotes; HTML stays what it is."""
    return content if isinstance(content, Html) else Html(html.escape(content))


def joined(parts: Iterable[str]) -> Html:
    """Return the parts one after another, text among them escaped."""
    return Html("".join(map(escaped, parts)))


def element(name: str, *content: str, attributes: Attributes | None = None) -> Html:
    """Return an element with its content, for example ``element("p", "1 < 2")``."""
    inside = "".join(f' {key}="{escaped(value)}"' for key, value in (attributes or {}).items())
    return Html(f"<{name}{inside}>{joined(content)}</{name}>")


def section(title: str, *content: str, anchor: str) -> Html:
    """Return a section with a heading that the page's contents can point to."""
    return element("section", element("h2", title), *content, attributes={"id": anchor})


def folded(summary: str, *content: str) -> Html:
    """Return content that is shown when its summary is clicked, and in print where browsers can."""
    return element("details", element("summary", summary), *content)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    kind: str = "",
    texts: Collection[int] = (),
) -> Html:
    """Return a table whose first row and first column are headers.

    Args:
        head: the headers of the columns.
        rows: the cells; the first of each row is the row's header.
        caption: what the table shows, for everybody and for screen readers.
        kind: "" aligns all but the first column to the right, as numbers are; "text" to the left.
        texts: which columns, counted from 0, to align to the left one by one.
    """
    left = [{"class": "left"} if column in texts else {} for column in range(len(head))]
    top = joined(
        element("th", cell, attributes={"scope": "col", **side})
        for cell, side in zip(head, left, strict=True)
    )
    body = joined(
        element(
            "tr",
            element("th", row[0], attributes={"scope": "row"}),
            *(
                element("td", cell, attributes=side)
                for cell, side in zip(row[1:], left[1:], strict=True)
            ),
        )
        for row in rows
    )
    content = (
        element("caption", caption),
        element("thead", element("tr", top)),
        element("tbody", body),
    )
    attributes = {"class": kind} if kind else {}
    return scrolling(element("table", *content, attributes=attributes), label=caption)


def scrolling(content: str, *, label: str) -> Html:
    """Return content that may be wider than the page and then scrolls, also by keyboard."""
    attributes = {"class": "scroll", "role": "region", "aria-label": label, "tabindex": "0"}
    return element("div", content, attributes=attributes)


def picture(pixels: NDArray[np.uint8], *, alt: str, zoom: bool = False) -> Html:
    """Return an array (H, W), (H, W, 3) or (H, W, 4) as an image inside the page.

    Args:
        pixels: grey, red green blue, or these and alpha.
        alt: what the picture shows, in words.
        zoom: show single pixels as squares where the picture is enlarged.
    """
    data = base64.b64encode(encode_png(pixels)).decode()
    kind = ' class="zoom"' if zoom else ""
    height, width = pixels.shape[:2]
    return Html(
        f'<img{kind} width="{width}" height="{height}" alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{data}">'
    )


def figure(content: str, *, caption: str) -> Html:
    """Return a picture with a caption below it."""
    return element("figure", content, element("figcaption", caption))


def swatch(rgb: Sequence[int]) -> Html:
    """Return a small square in a colour, which screen readers pass over."""
    red, green, blue = rgb
    style = f"background:rgb({red},{green},{blue})"
    return element("i", attributes={"class": "swatch", "aria-hidden": "true", "style": style})


def write_page(title: str, *content: str) -> str:
    """Return a whole page; its title is the first heading too."""
    style = resources.files("cvmh.page").joinpath("style.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escaped(title)}</title>'
        f"<style>{style}</style>"
    )
    body = element("main", element("h1", title), *content)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
