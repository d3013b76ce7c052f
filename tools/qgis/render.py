"""Draw a mask as QGIS shows it, with its legend, as a PNG; without a window.

/usr/bin/python3 render.py MASK PICTURE.png [--scene SCENE] [--width 1200]

Runs in the Python of QGIS (on Windows: python-qgis.bat). With --scene the scene lies beside the
mask, and under it where --opacity is below 1.
"""

import argparse
import os
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendStyle,
    QgsMapLayerLegendUtils,
    QgsPrintLayout,
    QgsProject,
    QgsRasterLayer,
    QgsUnitTypes,
)
from qgis.PyQt.QtGui import QColor, QFont

# Millimetres on the page, whose resolution follows from the width of the picture in pixels.
MAP, LEGEND, MARGIN = 120.0, 45.0, 4.0
MILLIMETRES_PER_INCH = 25.4
FONT_POINTS = 9
# Where there is no data; a class may well be white.
NOTHING = QColor(224, 224, 224)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mask", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--opacity", type=float, default=1.0, help="of the mask over the scene")
    parser.add_argument("--width", type=int, default=1200, help="of the picture in pixels")
    return parser.parse_args(arguments)


def open_layer(path, name):
    layer = QgsRasterLayer(str(path), name)
    if not layer.isValid():
        sys.exit(f"render.py: {path} cannot be opened as a raster")
    return layer


def lay_out(project, maps, mask):
    """Return a page with maps side by side, each a list of layers from the top, and a legend."""
    extent = mask.extent()
    height = MAP * extent.height() / extent.width()
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    width = len(maps) * (MAP + MARGIN) + LEGEND + MARGIN
    page = layout.pageCollection().page(0)
    page.setPageSize(size(width, height + 2 * MARGIN))
    for number, layers in enumerate(maps):
        item = QgsLayoutItemMap(layout)
        layout.addLayoutItem(item)
        # Without a size of its own before it has an extent, a map never gets one.
        item.setRect(0, 0, MAP, height)
        item.attemptMove(point(MARGIN + number * (MAP + MARGIN), MARGIN))
        item.attemptResize(size(MAP, height))
        item.setLayers(layers)
        item.setCrs(mask.crs())
        item.zoomToExtent(extent)
        item.setFrameEnabled(True)
        item.setBackgroundColor(NOTHING)
    add_legend(layout, mask, point(MARGIN + len(maps) * (MAP + MARGIN), MARGIN))
    return layout


def add_legend(layout, mask, place):
    legend = QgsLayoutItemLegend(layout)
    legend.setAutoUpdateModel(False)
    root = legend.model().rootGroup()
    for entry in root.findLayers():
        if entry.layerId() != mask.id():
            root.removeChildNode(entry)
    # The first entry only names the band.
    entry = root.findLayer(mask.id())
    entries = range(1, len(mask.legend().createLayerTreeModelLegendNodes(entry)))
    QgsMapLayerLegendUtils.setLegendNodeOrder(entry, entries)
    legend.model().refreshLayerLegend(entry)
    for part in (QgsLegendStyle.Subgroup, QgsLegendStyle.SymbolLabel):
        legend.setStyleFont(part, QFont("DejaVu Sans", FONT_POINTS))
    layout.addLayoutItem(legend)
    legend.attemptMove(place)
    legend.adjustBoxSize()


def point(x, y):
    return QgsLayoutPoint(x, y, QgsUnitTypes.LayoutMillimeters)


def size(width, height):
    return QgsLayoutSize(width, height, QgsUnitTypes.LayoutMillimeters)


def main():
    wanted = parse(sys.argv[1:])
    # No window, also where there could be one.
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = QgsApplication([], True)
    application.initQgis()
    mask = open_layer(wanted.mask, wanted.mask.name)
    mask.setOpacity(wanted.opacity)
    project, maps = QgsProject.instance(), [[mask]]
    if wanted.scene:
        scene = open_layer(wanted.scene, wanted.scene.name)
        maps = [[scene], [mask, scene] if wanted.opacity < 1 else [mask]]
        project.addMapLayer(scene)
    project.addMapLayer(mask)
    project.setCrs(mask.crs())
    layout = lay_out(project, maps, mask)
    inches = layout.pageCollection().page(0).pageSize().width() / MILLIMETRES_PER_INCH
    picture = QgsLayoutExporter(layout).renderPageToImage(0, dpi=wanted.width / inches)
    if not picture.save(str(wanted.picture)):
        sys.exit(f"render.py: {wanted.picture} cannot be written")
    print(wanted.picture, flush=True)
    # QGIS may crash while Python takes its objects apart.
    os._exit(0)


main()
