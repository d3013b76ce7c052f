import json
import re
import shutil
import subprocess
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from cvmh.classes import ISPRS, ClassTable, SegClass
from cvmh.geo.legend import clean, write_legend
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster

GRID = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
# GeoTIFF keys cannot express it; GDAL keeps it in an .aux.xml.
ROTATED_POLE = CRS.from_string(
    "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +ellps=WGS84"
)
ODD = ClassTable(
    (
        SegClass(id=0, name='a & b < c > "d"', rgb=(1, 2, 3)),
        SegClass(id=1, name="Straße 道路 🌲", rgb=(255, 0, 128)),
        SegClass(id=2, name="", rgb=(0, 0, 0)),
    )
)
needs_gdalinfo = pytest.mark.skipif(
    shutil.which("gdalinfo") is None, reason="gdalinfo (gdal-bin) is not installed"
)


@pytest.fixture
def make_mask(make_raster, tmp_path):
    """Return a function that writes a mask and gives its path and its ids."""

    def make(classes=ISPRS, shape=(700, 600), **georeference):
        ids = np.random.default_rng(0).integers(0, len(classes), shape, dtype="uint8")
        ids[: shape[0] // 3] = 255
        scene = make_raster(array=ids[None], **(georeference or GRID))
        path = tmp_path / "mask.tif"
        with Raster(scene) as raster, MaskWriter(path, raster, classes) as writer:
            writer.write_rows(ids)
        return path, ids

    return make


def gdalinfo(path, *options):
    run = subprocess.run(["gdalinfo", *options, str(path)], capture_output=True, text=True)
    assert run.returncode == 0 and "ERROR" not in run.stderr, run.stderr
    return run.stdout


def read_attribute_table(path):
    """Return {column: (usage, values)} as GDAL prints it after reading."""
    text = re.search("<GDALRasterAttributeTable.*</GDALRasterAttributeTable>", gdalinfo(path), re.S)
    table = ElementTree.fromstring(text[0])
    assert table.get("tableType") == "thematic"
    rows = [[field.text or "" for field in row] for row in table.iterfind("Row")]
    columns = [(c.findtext("Name"), c.findtext("Usage")) for c in table.iterfind("FieldDefn")]
    return {
        name: (usage, [row[index] for row in rows]) for index, (name, usage) in enumerate(columns)
    }


@needs_gdalinfo
@pytest.mark.parametrize("classes", [ISPRS, ODD], ids=["isprs", "odd"])
def test_gdal_sees_names_and_colours(make_mask, classes):
    path, _ = make_mask(classes)
    (band,) = json.loads(gdalinfo(path, "-json"))["bands"]
    assert band["noDataValue"] == 255
    assert band["colorInterpretation"] == "Palette"
    entries = band["colorTable"]["entries"]
    assert entries[: len(classes)] == [[*c.rgb, 255] for c in classes]
    assert entries[255] == [0, 0, 0, 0]
    listed = re.search(r"  Categories:\n((?: +\d+: .*\n)+)", gdalinfo(path))[1]
    assert re.findall(r" +(\d+): (.*)\n", listed) == [(str(c.id), c.name) for c in classes]


@needs_gdalinfo
def test_gdal_sees_an_attribute_table_with_its_usages(make_mask):
    path, ids = make_mask(ODD)
    table = read_attribute_table(path)
    # From gdal.h: MinMax 5, PixelCount 1, Name 2, Red 6, Green 7, Blue 8, Alpha 9.
    assert table["Value"] == ("5", ["0", "1", "2"])
    assert table["Name"] == ("2", [c.name for c in ODD])
    counts = [int((ids == c.id).sum()) for c in ODD]
    assert table["PixelCount"][0] == "1"
    assert [float(value) for value in table["PixelCount"][1]] == counts
    colours = [table[name] for name in ("Red", "Green", "Blue", "Alpha")]
    assert [usage for usage, _ in colours] == ["6", "7", "8", "9"]
    values = zip(*(values for _, values in colours), strict=True)
    assert list(values) == [(*map(str, c.rgb), "255") for c in ODD]


@needs_gdalinfo
def test_counts_beyond_32_bits_are_kept(make_mask):
    path, _ = make_mask()
    path.with_name("mask.tif.aux.xml").unlink()
    write_legend(path, ISPRS, [40_000_000_000, *range(5)])
    counts = read_attribute_table(path)["PixelCount"][1]
    assert [float(value) for value in counts] == [40_000_000_000, 0, 1, 2, 3, 4]


@needs_gdalinfo
def test_the_legend_stands_beside_a_crs_that_geotiff_cannot_hold(make_mask):
    path, _ = make_mask(crs=ROTATED_POLE, transform=Affine(0.1, 0, 5, 0, -0.1, 5))
    with rasterio.open(path) as mask:
        assert mask.crs == ROTATED_POLE
    assert read_attribute_table(path)["Name"][1] == ISPRS.names


@pytest.mark.parametrize("shape", [(700, 600), (1, 1), (1300, 1)])
def test_pixels_are_counted_whether_written_or_skipped(make_raster, tmp_path, shape):
    ids = np.random.default_rng(0).integers(0, 6, shape, dtype="uint8")
    scene = make_raster(array=ids[None], **GRID)
    above, below = shape[0] // 3, shape[0] // 4
    with (
        Raster(scene) as raster,
        MaskWriter(tmp_path / "mask.tif", raster, ISPRS) as writer,
    ):
        writer.skip_rows(above)
        writer.write_rows(ids[above : shape[0] - below])
        writer.skip_rows(below)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        expected = [int((mask.read(1) == value).sum()) for value in range(256)]
    assert writer.pixels.tolist() == expected


def test_the_same_mask_has_the_same_legend(make_mask, tmp_path):
    texts = []
    for _ in range(2):
        path, _ = make_mask()
        texts.append([(tmp_path / name).read_text() for name in ("mask.tif.aux.xml", "mask.qml")])
        path.unlink()
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a\0b\x1f", "a b"), (" a \n b\t", "a b"), ("\ud800x\uffff", "x"), ("é道🌲&", "é道🌲&")],
)
def test_names_are_made_fit_for_xml(name, expected):
    assert clean(name) == expected


def test_a_name_that_xml_cannot_hold_does_no_harm(make_mask, tmp_path):
    classes = ClassTable((SegClass(id=0, name="bell\x07\x00", rgb=(1, 2, 3)),))
    make_mask(classes)
    for name in ("mask.tif.aux.xml", "mask.qml"):
        assert "bell" in ElementTree.tostring(
            ElementTree.parse(tmp_path / name).getroot(), "unicode"
        )


def test_a_mask_without_a_georeference_has_its_legend_too(make_raster, tmp_path):
    scene = make_raster()
    with Raster(scene) as raster, MaskWriter(tmp_path / "mask.tif", raster, ISPRS) as writer:
        writer.skip_rows(raster.height)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "mask.tif") as mask:
            assert (mask.read(1) == 255).all()
            names = {name.rpartition("/")[2] for name in mask.files}
    assert names == {"mask.tif", "mask.tif.aux.xml"}
