"""Areas of interest from files, against each pixel's centre taken into the file's own CRS."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.warp import transform as to_crs

from cvmh.errors import VectorError
from cvmh.geo.area_file import open_area
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

HEIGHT, WIDTH = 120, 160
ALL = Window(0, 0, HEIGHT, WIDTH)
UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
# A degree of it is 160 km wide; edges that are straight in degrees bend by many pixels.
LARGE_UTM = {"crs": "EPSG:32633", "transform": Affine(2500, 0, 300_000, 0, -2500, 5_400_000)}
ROTATED = {
    "crs": "EPSG:32633",
    "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)
    @ Affine.rotation(31)
    @ Affine.shear(10, 0),
}
DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.001, 0, 15, 0, -0.001, 49)}
POLAR = {"crs": "EPSG:3031", "transform": Affine(5e4, 0, -4e6, 0, -5e4, 3e6)}
# Fiji: UTM zone 60 south, across the antimeridian.
FIJI = {"crs": "EPSG:32760", "transform": Affine(2000, 0, 700_000, 0, -2000, 8_100_000)}
GERMAN_FEET = {"crs": "EPSG:2263", "transform": Affine(3, 0, 1e6, 0, -3, 2.1e5)}


@pytest.fixture
def make_grid(make_raster):
    def make(name="scene.tif", **grid):
        return make_raster(name, np.ones((1, HEIGHT, WIDTH), "uint8"), **grid)

    return make


@pytest.fixture
def write(tmp_path):
    """Return a function that writes geometries with pyogrio and gives the path."""

    def make(geometries, crs="EPSG:4326", name="area.gpkg", **options):
        path = tmp_path / name
        kind = {"geometry_type": geometries[0].geom_type, **options}
        wkb = np.array(shapely.to_wkb(geometries), dtype=object)
        pyogrio.raw.write(path, wkb, [], [], crs=crs, **kind)
        return path

    return make


def centres_in(grid, crs):
    """Return x and y (H, W) of each pixel's centre in some CRS."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    a, b, c, d, e, f = grid["transform"][:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    if crs != grid["crs"]:
        x, y = to_crs(grid["crs"], crs, x.ravel().tolist(), y.ravel().tolist())[:2]
    return np.reshape(x, (HEIGHT, WIDTH)), np.reshape(y, (HEIGHT, WIDTH))


def box_around(grid, crs, share=0.6):
    """Return a box in some CRS around the middle of a scene."""
    x, y = centres_in(grid, crs)
    (left, right), (bottom, top) = ((axis.min(), axis.max()) for axis in (x, y))
    dx, dy = (right - left) * (1 - share) / 2, (top - bottom) * (1 - share) / 2
    return shapely.box(left + dx, bottom + dy, right - dx, top - dy)


def read(scene, path, **options):
    with Raster(scene) as raster:
        return open_area(path, raster, **options).read(ALL)


CASES = {
    "same CRS": (UTM, "EPSG:32633"),
    "degrees over UTM": (UTM, "EPSG:4326"),
    "degrees over a large scene in UTM": (LARGE_UTM, "EPSG:4326"),
    "UTM over degrees": (DEGREES, "EPSG:32633"),
    "Web Mercator over rotated and sheared UTM": (ROTATED, "EPSG:3857"),
    "degrees over feet": (GERMAN_FEET, "EPSG:4326"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pixel_belongs_to_the_area_if_its_centre_lies_in_the_polygon_of_the_file(
    make_grid, write, name
):
    grid, crs = CASES[name]
    polygon = box_around(grid, crs)
    found = read(make_grid(**grid), write([polygon], crs))
    expected = shapely.contains_xy(polygon, *centres_in(grid, crs))
    assert 0.1 < expected.mean() < 0.9
    # Edges of the file are followed to within a twentieth of a pixel.
    assert (found != expected).mean() < 2e-3


def test_an_edge_that_bends_is_followed_and_not_cut_short(make_grid, write):
    # The straight line between two corners lies more than a pixel away from the parallel.
    polygon = shapely.box(12.5, 46.4, 17.5, 48.2)
    found = read(make_grid(**LARGE_UTM), write([polygon]))
    expected = shapely.contains_xy(polygon, *centres_in(LARGE_UTM, "EPSG:4326"))
    x, y = to_crs("EPSG:4326", "EPSG:32633", *polygon.exterior.coords.xy)[:2]
    cut_short = shapely.Polygon(np.stack([x, y], axis=1))
    straight = shapely.contains_xy(cut_short, *centres_in(LARGE_UTM, "EPSG:32633"))
    assert (straight != expected).sum() > 150
    assert (found != expected).sum() < 15


def test_the_whole_world_may_be_laid_over_a_scene(make_grid, write):
    world = write([shapely.box(-180, -90, 180, 90)])
    for number, grid in enumerate([UTM, ROTATED, DEGREES, POLAR, FIJI, LARGE_UTM]):
        assert read(make_grid(f"{number}.tif", **grid), world).all(), grid


def test_a_cap_around_a_pole_is_right_in_a_polar_scene(make_grid, write):
    found = read(make_grid(**POLAR), write([shapely.box(-180, -90, 180, -70)]))
    np.testing.assert_array_equal(found, centres_in(POLAR, "EPSG:4326")[1] < -70)


def test_an_area_that_was_split_at_the_antimeridian_is_whole_in_the_scene(make_grid, write):
    halves = [shapely.box(178.5, -18.5, 180, -17.5), shapely.box(-180, -18.5, -179, -17.5)]
    found = read(make_grid(**FIJI), write(halves))
    x, y = centres_in(FIJI, "EPSG:4326")
    expected = ((x > 178.5) | (x < -179)) & (y > -18.5) & (y < -17.5)
    assert expected.any()
    assert (found != expected).mean() < 2e-3


@pytest.mark.parametrize("name", ["a.geojson", "a.fgb", "a.shp", "a.gpkg"])
def test_the_common_formats_are_read(make_grid, write, name):
    polygon = box_around(UTM, "EPSG:4326")
    found = read(make_grid(**UTM), write([polygon], name=name))
    assert found.mean() == pytest.approx(0.36, abs=0.02)


def test_multipolygons_holes_and_broken_rings_are_understood(make_grid, write):
    x, y = 500_000, 5_400_000
    ring = shapely.box(x + 100, y - 700, x + 700, y - 100)
    holed = ring.difference(shapely.box(x + 200, y - 600, x + 600, y - 200))
    bow_tie = shapely.Polygon(
        [(x + 900, y), (x + 1500, y - 600), (x + 1500, y), (x + 900, y - 600)]
    )
    path = write([shapely.MultiPolygon([holed]), shapely.MultiPolygon([bow_tie])], UTM["crs"])
    found = read(make_grid(**UTM), path)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:70, 10:70] = True
    expected[20:60, 20:60] = False
    np.testing.assert_array_equal(found[:, :80], expected[:, :80])
    # A bow tie has two wings.
    assert found[30, 95] and found[30, 145]
    assert not found[5, 120] and not found[55, 120]


def test_one_layer_of_several_is_read(make_grid, write):
    left, right = shapely.box(500_000, 0, 500_800, 6e6), shapely.box(500_800, 0, 501_600, 6e6)
    write([shapely.Point(1, 2)], UTM["crs"], layer="points")
    write([left], UTM["crs"], layer="left", append=True)
    path = write([right], UTM["crs"], layer="right", append=True)
    scene = make_grid(**UTM)
    assert read(scene, path)[:, :80].all()
    for found in (read(scene, path, layer="right"), read(scene, f"{path}|layername=right")):
        assert found[:, 80:].all()
        assert not found[:, :80].any()
    with pytest.raises(VectorError, match=r"has no layer middle; it has points, left, right"):
        read(scene, path, layer="middle")


def refusal(scene, path, **options):
    with pytest.raises(VectorError) as caught:
        read(scene, path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_that_is_no_area_is_refused_in_one_sentence(make_grid, write, tmp_path):
    scene = make_grid(**UTM)
    assert "nowhere.gpkg does not exist" in refusal(scene, tmp_path / "nowhere.gpkg")
    (tmp_path / "text.geojson").write_text("hello")
    assert "text.geojson must be a vector file" in refusal(scene, tmp_path / "text.geojson")
    assert "scene.tif must be a vector file" in refusal(scene, scene)
    points = write([shapely.Point(15, 49)], name="points.gpkg")
    assert "must hold polygons, but holds points (Point)" in refusal(scene, points)
    lines = write([shapely.LineString([(15, 49), (15, 48)])], name="l.fgb", geometry_type="Unknown")
    assert "its layer l holds LineString" in refusal(scene, lines)
    empty = tmp_path / "empty.geojson"
    empty.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    assert "its layer empty is empty" in refusal(scene, empty)
    nothing = tmp_path / "null.geojson"
    nothing.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": None}))
    assert "its layer null is empty" in refusal(scene, nothing)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_an_area_without_crs_is_refused_but_geojson_has_one(make_grid, write):
    scene = make_grid(**UTM)
    bare = write([shapely.box(500_000, 5_399_000, 501_000, 5_400_000)], None)
    assert "area.gpkg must have a CRS to be laid over" in refusal(scene, bare)
    bare = write([box_around(UTM, "EPSG:4326")], None, name="a.geojson")
    assert read(scene, bare).any()


def test_a_scene_that_lies_nowhere_is_refused(make_grid, write):
    area = write([shapely.box(0, 0, 1, 1)])
    assert "but it has none; assign them" in refusal(make_grid("a.tif"), area)
    points = [
        GroundControlPoint(r, c, 15 + c / 1e3, 49 - r / 1e3) for r, c in [(0, 0), (9, 0), (9, 9)]
    ]
    scene = make_grid("b.tif", gcps=points, crs="EPSG:4326")
    assert "only ground control points; warp it first with gdalwarp" in refusal(scene, area)
    names = "line_num samp_num line_den samp_den".split()
    parts = {f"{name}_coeff": [1.0] + [0.0] * 19 for name in names}
    sides = "height lat line long samp".split()
    parts |= {f"{side}_{kind}": 1.0 for side in sides for kind in ("off", "scale")}
    scene = make_grid("c.tif", rpcs=RPC(**parts))
    assert "it has only RPCs; warp it first with gdalwarp -rpc" in refusal(scene, area)


def test_an_area_outside_the_scene_is_refused_with_both_extents(make_grid, write):
    scene = make_grid(**UTM)
    message = refusal(scene, write([shapely.box(2, 48, 3, 49)]))
    assert "lies wholly outside" in message
    assert "it spans 2..3 by 48..49, the scene 15..15.02" in message
    assert "EPSG:4326" in message
    # Beside a rotated scene, though within its bounds.
    message = refusal(
        make_grid("b.tif", **ROTATED),
        write([shapely.box(500_500, 5_399_900, 500_600, 5_400_000)], UTM["crs"], name="b.gpkg"),
    )
    assert "lies wholly outside" in message
