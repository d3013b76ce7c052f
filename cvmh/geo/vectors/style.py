"""The style of a vector layer for QGIS: one filled symbol a class."""

from xml.etree import ElementTree

from cvmh.classes import ClassTable
from cvmh.geo.legend import clean


def write_qml(classes: ClassTable) -> str:
    """Return a QML style that fills polygons by their attribute ``class``, by name."""
    root = ElementTree.Element("qgis", styleCategories="Symbology", version="3.22.0")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="class", enableorderby="0"
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for entry in classes:
        ElementTree.SubElement(
            categories,
            "category",
            value=clean(entry.name),
            label=clean(entry.name),
            symbol=str(entry.id),
            render="true",
            type="string",
        )
        symbol = ElementTree.SubElement(symbols, "symbol", name=str(entry.id), type="fill")
        layer = ElementTree.SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        options = ElementTree.SubElement(layer, "Option", type="Map")
        colour = ",".join(str(part) for part in (*entry.rgb, 255))
        for name, value in (
            ("color", colour),
            ("style", "solid"),
            # Neighbours touch each other: an outline of the same colour closes the hairlines.
            ("outline_color", colour),
            ("outline_style", "solid"),
            ("outline_width", "0.1"),
            ("outline_width_unit", "MM"),
        ):
            ElementTree.SubElement(options, "Option", name=name, type="QString", value=value)
    text = ElementTree.tostring(root, encoding="unicode")
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + text
