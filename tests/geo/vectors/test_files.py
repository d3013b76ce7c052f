"""The files themselves: read back by pyogrio, GDAL's tools and QGIS; and what is refused."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import shapely
from rasterio.warp import transform as to_crs

from cvmh.classes import ISPRS, ClassTable, SegClass
from cvmh.errors import ConfigError, OutputError, RasterError
from cvmh.geo.vectors import check_vectors, write_vectors
from cvmh.geo.vectors.layers import GdalLayer

SUFFIXES = [".gpkg", ".fgb", ".geojson", ".json", ".parquet"]
# QGIS comes with the Python of the system.
QGIS_PYTHON = "/usr/bin/python3"
ODD = ClassTable(
    (
        SegClass(id=0, name='a & "b" <c>', rgb=(10, 20, 30)),
        SegClass(id=1, name="rivière", rgb=(250, 0, 1)),
    )
)


def read_parquet(path):
    table = pyarrow.parquet.read_table(path)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return shapely.from_wkb(columns.pop("geometry")), columns


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_same_polygons(tmp_path, write_mask, read, draw_blobs, suffix):
    path = write_mask(draw_blobs(2, 60, 50, blob=4))
    sure = write_mask(np.full((60, 50), 127, np.uint8), "sure.tif")
    target = tmp_path / f"p{suffix}"
    for name in (tmp_path / "all.gpkg", target):
        write_vectors(path, name, ISPRS, confidence=sure, chunk=32)
    expected = read(tmp_path / "all.gpkg")
    if suffix == ".parquet":
        polygons, columns = read_parquet(target)
    else:
        polygons, columns, _ = read(target)
    if "json" in suffix:
        points = shapely.get_coordinates(expected.polygons)
        x, y = to_crs("EPSG:32632", "EPSG:4326", points[:, 0], points[:, 1])
        moved = shapely.set_coordinates(expected.polygons.copy(), np.stack([x, y], axis=1))
    else:
        moved = expected.polygons
    assert len(polygons) == len(moved)
    assert shapely.is_valid(polygons).all()
    # A FlatGeobuf is in the order of its index, so each polygon is found by a point inside it.
    points = shapely.point_on_surface(moved)
    mine, theirs = shapely.STRtree(points).query(polygons, predicate="contains")
    assert sorted(theirs) == sorted(mine) == list(range(len(moved)))
    outlines = shapely.normalize(polygons[mine]), shapely.normalize(moved[theirs])
    assert shapely.equals_exact(*outlines, 1e-8).all()
    assert list(columns) == ["class_id", "class", "area_m2", "confidence"]
    for name in columns:
        np.testing.assert_array_equal(columns[name][mine], expected.columns[name][theirs])
    assert set(columns["confidence"]) == {0.5}
    assert (shapely.is_ccw(shapely.get_exterior_ring(polygons))).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_mask_gives_a_whole_file_without_polygons(tmp_path, write_mask, read, suffix):
    path = write_mask(np.full((9, 9), 255, np.uint8))
    target = tmp_path / f"p{suffix}"
    summary = write_vectors(path, target, ISPRS, confidence=path, min_area=5)
    assert summary.num_polygons == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", target.name]
    if suffix == ".parquet":
        polygons, columns = read_parquet(target)
    else:
        polygons, columns, _ = read(target)
    assert len(polygons) == 0
    # A GeoJSON names its attributes only in its features.
    if "json" not in suffix:
        assert list(columns) == ["class_id", "class", "area_m2", "confidence"]


def test_a_geojson_follows_its_standard(tmp_path, write_mask):
    write_vectors(write_mask(np.zeros((4, 4), np.uint8)), tmp_path / "p.geojson", ISPRS)
    content = json.loads((tmp_path / "p.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    # Longitude and latitude without saying so: what RFC 7946 asks for.
    assert "crs" not in content
    (feature,) = content["features"]
    assert feature["geometry"]["type"] == "Polygon"
    (ring,) = feature["geometry"]["coordinates"]
    assert shapely.LinearRing(ring).is_ccw
    assert feature["properties"] == {"class_id": 0, "class": "impervious", "area_m2": 64.0}


def test_a_geoparquet_says_where_it_lies(tmp_path, write_mask):
    path = write_mask(np.zeros((4, 4), np.uint8))
    write_vectors(path, tmp_path / "p.parquet", ISPRS, tags={"model": "stub"})
    metadata = pyarrow.parquet.read_schema(tmp_path / "p.parquet").metadata
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"]) == ("1.1.0", "WKB")
    assert column["geometry_types"] == ["Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32632}
    assert column["bbox"] == [500_000, 5_399_992, 500_008, 5_400_000]
    assert metadata[b"CVMH_MODEL"] == b"stub"


def test_a_geopackage_is_one_file_with_index_and_style(tmp_path, write_mask):
    path = write_mask(np.zeros((4, 4), np.uint8))
    write_vectors(path, tmp_path / "my layer.gpkg", ISPRS, tags={"model": "stub"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", "my layer.gpkg"]
    connection = sqlite3.connect(tmp_path / "my layer.gpkg")
    tables = dict(connection.execute("SELECT table_name, data_type FROM gpkg_contents"))
    assert tables == {"my layer": "features", "layer_styles": "attributes"}
    assert connection.execute("SELECT COUNT(*) FROM gpkg_extensions").fetchone()[0] > 0
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    assert "rtree_my layer_geom" in names
    styles = connection.execute("SELECT f_table_name, useAsDefault FROM layer_styles").fetchall()
    assert styles == [("my layer", 1)]
    (metadata,) = connection.execute("SELECT metadata FROM gpkg_metadata").fetchone()
    assert "CVMH_MODEL" in metadata
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif(not shutil.which("ogrinfo"), reason="ogrinfo is not installed")
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson"])
def test_gdals_own_tools_read_it(tmp_path, write_mask, draw_blobs, suffix):
    path, target = write_mask(draw_blobs(3, 40, 40, blob=4)), tmp_path / f"p{suffix}"
    summary = write_vectors(path, target, ISPRS)
    told = subprocess.run(
        ["ogrinfo", "-so", "-ro", str(target), "p"], capture_output=True, text=True, check=True
    )
    assert f"Feature Count: {summary.num_polygons}" in told.stdout
    assert "Geometry: Polygon" in told.stdout
    for name in ("class_id: Integer", "class: String", "area_m2: Real"):
        assert name in told.stdout
    assert "ERROR" not in told.stderr and "Warning" not in told.stderr


QGIS_SCRIPT = """
import json, sys
from qgis.core import QgsApplication, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsVectorLayer(sys.argv[1], "p", "ogr")
renderer = layer.renderer()
told = {
    "valid": layer.isValid(),
    "count": layer.featureCount(),
    "kind": renderer.type(),
    "attribute": renderer.classAttribute(),
    "classes": [
        [c.value(), c.label(), list(c.symbol().color().getRgb())] for c in renderer.categories()
    ],
    "shown": sum(renderer.categoryIndexForValue(f["class"]) >= 0 for f in layer.getFeatures()),
}
print(json.dumps(told))
del layer
app.exitQgis()
"""


def qgis_is_there():
    if not Path(QGIS_PYTHON).exists():
        return False
    asked = subprocess.run([QGIS_PYTHON, "-c", "import qgis.core"], capture_output=True)
    return asked.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not qgis_is_there(), reason="QGIS is not installed")
def test_qgis_opens_a_geopackage_in_the_colours_of_its_classes(tmp_path, write_mask):
    array = np.array([[0, 1], [0, 255]], np.uint8)
    write_vectors(write_mask(array), tmp_path / "p.gpkg", ODD)
    (tmp_path / "ask.py").write_text(QGIS_SCRIPT)
    environment = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": os.defpath}
    done = subprocess.run(
        [QGIS_PYTHON, str(tmp_path / "ask.py"), str(tmp_path / "p.gpkg")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {
        "valid": True,
        "count": 2,
        "kind": "categorizedSymbol",
        "attribute": "class",
        "classes": [[c.name, c.name, [*c.rgb, 255]] for c in ODD],
        "shown": 2,
    }


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".parquet"])
def test_an_existing_file_is_only_replaced_when_asked(tmp_path, write_mask, suffix):
    path, target = write_mask(np.zeros((4, 4), np.uint8)), tmp_path / f"p{suffix}"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists; choose another name or add --overwrite"):
        write_vectors(path, target, ISPRS)
    assert target.read_text() == "mine"
    assert write_vectors(path, target, ISPRS, overwrite=True).num_polygons == 1
    assert write_vectors(path, target, ISPRS, overwrite=True).num_polygons == 1
    assert target.stat().st_size > 10


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("p.shp", r"written as .gpkg, .fgb, .geojson, .json, .parquet, got .*p.shp; choose"),
        ("p", "choose one of these"),
        ("nowhere/p.gpkg", "the folder .*nowhere of p.gpkg does not exist; create it"),
    ],
)
def test_a_bad_target_is_refused_before_the_mask_is_opened(tmp_path, target, message):
    with pytest.raises(OutputError, match=message):
        write_vectors(tmp_path / "missing.tif", tmp_path / target, ISPRS)


def test_a_folder_is_no_target(tmp_path):
    (tmp_path / "p.gpkg").mkdir()
    with pytest.raises(OutputError, match="is a folder; name a file"):
        check_vectors(tmp_path / "p.gpkg", overwrite=True)


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"pip install 'cvmh\[parquet\]'"):
        check_vectors(tmp_path / "p.parquet")


@pytest.mark.parametrize("name", ["min_area", "simplify"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_sizes_must_be_numbers_from_zero_up(tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a number from 0 up"):
        write_vectors(tmp_path / "m.tif", tmp_path / "p.gpkg", ISPRS, **{name: value})


def test_a_bad_mask_is_refused_and_leaves_nothing(tmp_path, write_mask):
    target = tmp_path / "p.gpkg"
    with pytest.raises(RasterError, match=r"m.tif does not exist"):
        write_vectors(tmp_path / "m.tif", target, ISPRS)
    with pytest.raises(RasterError, match=r"a mask has one band of dtype uint8, but .* int16"):
        write_vectors(write_mask(np.zeros((3, 3), np.int16)), target, ISPRS)
    path = write_mask(np.array([[0, 7]], np.uint8))
    with pytest.raises(RasterError, match=r"holds the id 7 in rows 0..1, columns 0..2"):
        write_vectors(path, target, ISPRS)
    sure = write_mask(np.zeros((3, 3), np.uint8), "sure.tif")
    with pytest.raises(RasterError, match=r"grid of the mask, 1 x 2 pixels, but .* has 3 x 3"):
        write_vectors(path, target, ISPRS, confidence=sure)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", "sure.tif"]


def test_a_failure_while_writing_leaves_the_older_file(tmp_path, write_mask, monkeypatch):
    path, target = write_mask(np.zeros((4, 4), np.uint8)), tmp_path / "p.gpkg"
    target.write_text("mine")

    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GdalLayer, "finish", fail)
    with pytest.raises(OutputError, match=r"p.gpkg cannot be written .No space left on device"):
        write_vectors(path, target, ISPRS, overwrite=True)
    assert target.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", "p.gpkg"]


def test_a_mask_is_never_replaced_by_its_own_polygons(tmp_path, write_mask):
    path = write_mask(np.zeros((4, 4), np.uint8))
    linked = tmp_path / "mask.gpkg"
    linked.symlink_to(path)
    with pytest.raises(OutputError, match="would replace its own source"):
        write_vectors(path, linked, ISPRS, overwrite=True)
    with rasterio.open(path) as mask:
        assert mask.shape == (4, 4)
