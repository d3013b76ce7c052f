"""A part of a raster as a file of its own, without copying a pixel: a small VRT."""

import math
import os
from pathlib import Path
from xml.etree import ElementTree

import rasterio.shutil

from cvmh.errors import OutputError
from cvmh.files import write_complete
from cvmh.geo.opening import GDAL_ERRORS, open_dataset
from cvmh.geo.tiling import Window


def write_window(path: Path, source: Path, window: Window) -> None:
    """Write a VRT that shows a window of a raster as it is: bands, masks, nodata and colours.

    The VRT names its source relative to itself, so that both can be moved together.

    Args:
        path: the VRT; an existing one is replaced.
        source: the raster, which must stay where it is.
        window: which pixels of it; it must lie inside.

    Raises:
        RasterError: the source cannot be opened.
        OutputError: the VRT cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.vrt")
    dataset = open_dataset(str(source))
    try:
        rasterio.shutil.copy(dataset, temporary, driver="VRT")
        whole = ElementTree.fromstring(temporary.read_text(encoding="utf-8"))
    except GDAL_ERRORS as error:
        raise OutputError(f"{path} cannot be written ({error.__cause__ or error})") from error
    finally:
        dataset.close()
        temporary.unlink(missing_ok=True)
    _cut(whole, window)
    for name in whole.iter("SourceFilename"):
        if not (name.text or "").startswith("/vsi"):
            name.text = os.path.relpath(source.absolute(), path.parent.absolute())
            name.set("relativeToVRT", "1")
    write_complete(path, ElementTree.tostring(whole, encoding="unicode") + "\n")


def _cut(whole: ElementTree.Element, window: Window) -> None:
    whole.set("rasterXSize", str(window.width))
    whole.set("rasterYSize", str(window.height))
    transform = whole.find("GeoTransform")
    if transform is not None and transform.text:
        x, a, b, y, d, e = (float(part) for part in transform.text.split(","))
        x = math.fsum([x, a * window.column, b * window.row])
        y = math.fsum([y, d * window.column, e * window.row])
        transform.text = ", ".join(repr(part) for part in (x, a, b, y, d, e))
    for point in whole.iter("GCP"):
        point.set("Pixel", repr(float(point.get("Pixel", "0")) - window.column))
        point.set("Line", repr(float(point.get("Line", "0")) - window.row))
    size = {"xSize": str(window.width), "ySize": str(window.height)}
    for taken in whole.iter("SrcRect"):
        taken.attrib.update({"xOff": str(window.column), "yOff": str(window.row), **size})
    for placed in whole.iter("DstRect"):
        placed.attrib.update({"xOff": "0", "yOff": "0", **size})
    # Blocks and statistics were those of the whole.
    for band in whole.iter("VRTRasterBand"):
        band.attrib.pop("blockXSize", None)
        band.attrib.pop("blockYSize", None)
        for known in ("Metadata", "Histograms", "Overview"):
            for element in band.findall(known):
                band.remove(element)
    for element in whole.findall("OverviewList"):
        whole.remove(element)
