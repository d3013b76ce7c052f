"""Run by the Python of QGIS: prints as JSON how QGIS shows the raster named on the line.

It is drawn at its own size, and the colours counted.
"""

import collections
import json
import os
import sys

from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def describe(path):
    layer = QgsRasterLayer(path, "layer")
    renderer = layer.renderer()
    classes = renderer.classes() if renderer.type() == "paletted" else []
    return {
        "is_valid": layer.isValid(),
        "renderer": renderer.type(),
        "classes": [[entry.value, entry.label, *QColor(entry.color).getRgb()] for entry in classes],
        "nodata": layer.dataProvider().sourceNoDataValue(1),
        "legend": [label for label, _ in layer.legendSymbologyItems()],
        "colours": count_colours(layer),
    }


def count_colours(layer):
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    settings.setOutputSize(QSize(layer.width(), layer.height()))
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage()
    counted = collections.Counter(
        picture.pixelColor(column, row).getRgb()
        for row in range(picture.height())
        for column in range(picture.width())
    )
    return [[*colour, number] for colour, number in sorted(counted.items())]


application = QgsApplication([], False)
application.initQgis()
print(json.dumps(describe(sys.argv[1])), flush=True)
# QGIS may crash while Python takes its objects apart.
os._exit(0)
