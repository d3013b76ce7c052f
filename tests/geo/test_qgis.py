import csv
import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from cvmh.classes import ISPRS, ClassTable, SegClass
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster
from cvmh.geo.vectors import write_vectors

SCRIPT = Path(__file__).with_name("describe_in_qgis.py")
ODD = ClassTable(
    (
        SegClass(id=0, name='a & b < c > "d"', rgb=(1, 2, 3)),
        SegClass(id=1, name="Straße 道路", rgb=(255, 0, 128)),
        SegClass(id=2, name="it's", rgb=(250, 250, 250)),
    )
)


@pytest.fixture
def make_mask(make_raster, tmp_path):
    """Return a function that writes a mask and gives its path and its ids."""

    def make(name, classes):
        ids = np.random.default_rng(0).integers(0, len(classes), (20, 30), dtype="uint8")
        ids[:5] = 255
        grid = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
        scene = make_raster(array=ids[None], **grid)
        with Raster(scene) as raster, MaskWriter(tmp_path / name, raster, classes) as writer:
            writer.write_rows(ids)
        return tmp_path / name, ids

    return make


@pytest.fixture
def describe(in_qgis):
    """Return a function that says how QGIS shows a raster."""

    def describe(path):
        run = in_qgis(SCRIPT, path)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return describe


@pytest.mark.parametrize("classes", [ISPRS, ODD], ids=["isprs", "odd"])
def test_qgis_shows_a_mask_by_its_classes(make_mask, describe, classes):
    path, ids = make_mask("mask.tif", classes)
    seen = describe(path)
    assert seen["is_valid"] and seen["renderer"] == "paletted"
    assert seen["classes"] == [[c.id, c.name, *c.rgb, 255] for c in classes]
    assert seen["legend"][-len(classes) :] == classes.names
    assert seen["nodata"] == 255
    # What is drawn: each class in its colour, nodata not at all.
    expected = [[*c.rgb, 255, int((ids == c.id).sum())] for c in classes]
    expected.append([0, 0, 0, 0, int((ids == 255).sum())])
    assert seen["colours"] == sorted(expected)


def test_a_mask_without_its_style_is_shown_by_its_palette_and_category_names(make_mask, describe):
    path, ids = make_mask("mask.tif", ISPRS)
    path.with_suffix(".qml").unlink()
    named = describe(path)
    path.with_name("mask.tif.aux.xml").unlink()
    bare = describe(path)
    assert named["renderer"] == bare["renderer"] == "paletted"
    assert named["classes"][: len(ISPRS)] == [[c.id, c.name, *c.rgb, 255] for c in ISPRS]
    assert bare["classes"][: len(ISPRS)] == [[c.id, str(c.id), *c.rgb, 255] for c in ISPRS]
    expected = [[*c.rgb, 255, int((ids == c.id).sum())] for c in ISPRS]
    expected.append([0, 0, 0, 0, int((ids == 255).sum())])
    assert named["colours"] == bare["colours"] == sorted(expected)


def test_an_overwritten_mask_is_not_shown_by_its_old_legend(make_mask, describe):
    path, _ = make_mask("mask.tif", ISPRS)
    with Raster(path.with_name("scene.tif")) as raster:
        with MaskWriter(path, raster, ODD, overwrite=True) as writer:
            writer.skip_rows(raster.height)
    seen = describe(path)
    assert [entry[1] for entry in seen["classes"]] == ODD.names


POLYGONS = """
import json, os, sys
from qgis.core import QgsApplication, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(sys.argv[1], "layer", "ogr")
labels = [entry.label() for entry in layer.renderer().categories() if entry.value() is not None]
print(json.dumps([layer.isValid(), labels]), flush=True)
os._exit(0)
"""


def test_the_style_of_a_mask_is_not_taken_for_that_of_polygons_of_the_same_name(
    make_mask, in_qgis, tmp_path
):
    path, _ = make_mask("mask.tif", ISPRS)
    write_vectors(path, tmp_path / "mask.gpkg", ISPRS)
    assert path.with_suffix(".qml").exists()
    (tmp_path / "polygons.py").write_text(POLYGONS)
    run = in_qgis(tmp_path / "polygons.py", tmp_path / "mask.gpkg")
    is_valid, labels = json.loads(run.stdout)
    assert is_valid and set(ISPRS.names) <= set(labels)


def test_a_tool_of_qgis_counts_the_pixels_of_each_class(make_mask, in_qgis, qgis_process, tmp_path):
    path, ids = make_mask("mask.tif", ISPRS)
    run = in_qgis(
        qgis_process,
        "run",
        "native:rasterlayeruniquevaluesreport",
        "--",
        f"INPUT={path}",
        "BAND=1",
        f"OUTPUT_TABLE={tmp_path / 'report.csv'}",
    )
    assert run.returncode == 0, run.stderr
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {int(float(row["value"])): row for row in csv.DictReader(file)}
    assert {value: int(row["count"]) for value, row in rows.items()} == {
        c.id: int((ids == c.id).sum()) for c in ISPRS
    }
    assert all(float(row["m2"]) == 4 * int(row["count"]) for row in rows.values())
