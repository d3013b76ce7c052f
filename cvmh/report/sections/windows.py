"""The worst and the best windows of an evaluation, as pictures side by side."""

from collections.abc import Sequence

from cvmh.classes import ClassTable
from cvmh.page import Html, element, joined, picture, section, swatch
from cvmh.plots import NODATA_COLOUR, RIGHT_COLOUR, WRONG_COLOUR
from cvmh.report.numbers import percent
from cvmh.report.window_pictures import WindowPanels


def window_section(
    worst: Sequence[WindowPanels], best: Sequence[WindowPanels], classes: ClassTable
) -> Html:
    """Return both kinds of windows with their legend."""
    parts = [_legend(classes)]
    if worst:
        parts += [element("h3", "Worst"), *(_row(panels, classes) for panels in worst)]
    if best:
        parts += [element("h3", "Best"), *(_row(panels, classes) for panels in best)]
    return section("Worst and best windows", *parts, anchor="windows")


def _legend(classes: ClassTable) -> Html:
    entries = [
        *((entry.name, entry.rgb) for entry in classes),
        ("not counted", NODATA_COLOUR),
        ("right", RIGHT_COLOUR),
        ("wrong", WRONG_COLOUR),
    ]
    items = joined(element("li", swatch(rgb), name) for name, rgb in entries)
    return element("ul", items, attributes={"class": "legend", "aria-label": "Colours"})


def _row(panels: WindowPanels, classes: ClassTable) -> Html:
    where = f"{panels.found.image.stem}, {panels.found.window}"
    parts = (
        ("image", panels.image),
        ("label", panels.label),
        ("prediction", panels.mask),
        ("error", panels.error),
    )
    pictures = joined(
        element(
            "div",
            picture(pixels, alt=f"{name} of {where}", zoom=name != "image"),
            element("span", name),
        )
        for name, pixels in parts
    )
    return element(
        "figure",
        element("div", pictures, attributes={"class": "panels"}),
        element("figcaption", f"{where}: ", element("strong", _told(panels, classes))),
        attributes={"class": "window"},
    )


def _told(panels: WindowPanels, classes: ClassTable) -> str:
    text = f"{percent(panels.found.wrong)} % wrong"
    mistake = panels.found.worst_mistake()
    if mistake is None:
        return text
    label, guess, share = mistake
    names = classes.names
    return f"{text}, {percent(share)} % is {names[label]} predicted as {names[guess]}"
