"""The legend of a mask: the files beside it in which GDAL and QGIS find names and colours."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.geo.output import style_path

# Columns of GDAL's raster attribute table: name, type (0 integer, 1 real, 2 text), usage. Counts
# are real since the integers have 32 bits.
COLUMNS = (
    ("Value", 0, 5),
    ("PixelCount", 1, 1),
    ("Name", 2, 2),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
)
# What XML 1.0 cannot hold at all, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def colour_table(classes: ClassTable) -> dict[int, tuple[int, int, int, int]]:
    """Return (red, green, blue, alpha) of every class id; nodata is transparent."""
    return {**{c.id: (*c.rgb, 255) for c in classes}, NODATA_ID: (0, 0, 0, 0)}


def write_legend(mask: Path, classes: ClassTable, pixels: Sequence[int]) -> None:
    """Write the legend of a mask beside it, as ``.aux.xml`` for GDAL and ``.qml`` for QGIS.

    The legend holds the classes only: 255 is declared as nodata in the mask itself, so it is no
    category, and a viewer that lists the legend does not list it. What an ``.aux.xml`` holds
    already, for example a CRS, stays there.

    Args:
        mask: the mask.
        classes: names and colours.
        pixels: number of pixels by class id.

    Raises:
        OSError: a file cannot be written.
    """
    auxiliary = mask.with_name(f"{mask.name}.aux.xml")
    root = ElementTree.parse(auxiliary).getroot() if auxiliary.exists() else Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        band = SubElement(root, "PAMRasterBand", band="1")
    _add_names(band, classes)
    _add_attribute_table(band, classes, pixels)
    _save(root, auxiliary)
    _save(_style(classes), style_path(mask), "<!DOCTYPE qgis>\n")


def _add_names(band: Element, classes: ClassTable) -> None:
    names = SubElement(band, "CategoryNames")
    for name in classes.names:
        SubElement(names, "Category").text = clean(name)


def _add_attribute_table(band: Element, classes: ClassTable, pixels: Sequence[int]) -> None:
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(COLUMNS):
        column = SubElement(table, "FieldDefn", index=str(index))
        for key, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            SubElement(column, key).text = str(value)
    for index, entry in enumerate(classes):
        row = SubElement(table, "Row", index=str(index))
        for value in (entry.id, pixels[entry.id], clean(entry.name), *entry.rgb, 255):
            SubElement(row, "F").text = str(value)


def _style(classes: ClassTable) -> Element:
    """Return a QGIS style that shows each class in its colour and under its name."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    resampling = SubElement(SubElement(pipe, "provider"), "resampling")
    resampling.set("enabled", "false")
    for zoomed in ("zoomedIn", "zoomedOut"):
        resampling.set(f"{zoomed}ResamplingMethod", "nearestNeighbour")
    attributes = {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"}
    renderer = SubElement(pipe, "rasterrenderer", attributes)
    SubElement(renderer, "rasterTransparency")
    palette = SubElement(renderer, "colorPalette")
    for entry in classes:
        colour = "#{:02x}{:02x}{:02x}".format(*entry.rgb)
        values = {"value": str(entry.id), "label": clean(entry.name), "color": colour}
        SubElement(palette, "paletteEntry", values, alpha="255")
    SubElement(root, "blendMode").text = "0"
    return root


def clean(name: str) -> str:
    """Return a name as XML can hold it: on one line, without control characters."""
    return " ".join(FORBIDDEN.sub(" ", name).split())


def _save(root: Element, path: Path, head: str = "") -> None:
    ElementTree.indent(root)
    path.write_text(f"{head}{ElementTree.tostring(root, encoding='unicode')}\n", encoding="utf-8")
