"""Coordinates and areas on the ground, each against a formula of its own."""

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from cvmh.classes import ISPRS
from cvmh.errors import OutputError, RasterError
from cvmh.geo.vectors import write_vectors

SEMI_MAJOR, FLATTENING = 6378137.0, 1 / 298.257223563
ECCENTRICITY = math.sqrt(FLATTENING * (2 - FLATTENING))


def zone_area(south, north, degrees):
    """Return the area of a piece of the ellipsoid between two latitudes, by the closed form."""

    def authalic(latitude):
        sine = math.sin(math.radians(latitude))
        curved = math.atanh(ECCENTRICITY * sine) / ECCENTRICITY
        return sine / (1 - (ECCENTRICITY * sine) ** 2) + curved

    semi_minor = SEMI_MAJOR * (1 - FLATTENING)
    return semi_minor**2 / 2 * math.radians(degrees) * (authalic(north) - authalic(south))


def run(path, target, **options):
    write_vectors(path, target, ISPRS, simplify=0, overwrite=True, **options)
    return target


@pytest.mark.parametrize("top", [89.9, 60, 5, -40])
def test_areas_in_degrees_are_those_of_the_ellipsoid(tmp_path, write_mask, read, top):
    array = np.zeros((40, 30), np.uint8)
    array[:, 20:] = 1
    transform = Affine(0.02, 0, 10, 0, -0.02, top)
    path = write_mask(array, crs="EPSG:4326", transform=transform)
    areas = read(run(path, tmp_path / "p.gpkg", chunk=16)).columns["area_m2"]
    assert max(areas) == pytest.approx(zone_area(top - 0.8, top, 0.4), rel=1e-6)
    assert min(areas) == pytest.approx(zone_area(top - 0.8, top, 0.2), rel=1e-6)


def test_the_whole_earth_has_the_area_of_the_ellipsoid(tmp_path, write_mask, read):
    transform = Affine(0.5, 0, -180, 0, -0.5, 90)
    path = write_mask(np.zeros((360, 720), np.uint8), crs="EPSG:4326", transform=transform)
    (area,) = read(run(path, tmp_path / "p.gpkg", chunk=100)).columns["area_m2"]
    assert area == pytest.approx(510_065_621_724_089, rel=2e-5)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3395"])
def test_areas_in_mercators_metres_are_those_on_the_ground(tmp_path, write_mask, read, crs):
    side = 100.0
    y = 8_000_000.0
    transform = Affine(side, 0, 1_000_000, 0, -side, y)
    path = write_mask(np.zeros((50, 40), np.uint8), crs=crs, transform=transform)
    (area,) = read(run(path, tmp_path / "p.gpkg")).columns["area_m2"]
    # Inverse of both Mercators by iteration of the isometric latitude.
    eccentricity = ECCENTRICITY if crs == "EPSG:3395" else 0.0

    def latitude(northing):
        psi = northing / SEMI_MAJOR
        sine = math.tanh(psi)
        for _ in range(20):
            sine = math.tanh(psi + eccentricity * math.atanh(eccentricity * sine))
        return math.degrees(math.asin(sine))

    degrees = math.degrees(side * 40 / SEMI_MAJOR)
    assert area == pytest.approx(zone_area(latitude(y - 50 * side), latitude(y), degrees), rel=1e-6)
    assert area < 0.5 * 50 * 40 * side**2


def test_areas_in_feet_are_converted(tmp_path, write_mask, read):
    path = write_mask(
        np.zeros((10, 10), np.uint8), crs="EPSG:2263", transform=Affine(3, 0, 1e6, 0, -3, 2e5)
    )
    (area,) = read(run(path, tmp_path / "p.gpkg")).columns["area_m2"]
    assert area == pytest.approx(900 * (1200 / 3937) ** 2)


def test_a_rotated_and_sheared_mask_keeps_shape_place_and_area(tmp_path, write_mask, read):
    array = np.zeros((30, 40), np.uint8)
    array[10:, 15:] = 1
    transform = Affine(0.5, 0.2, 500_000, 0.1, -0.7, 5_400_000) @ Affine.rotation(27)
    path = write_mask(array, crs="EPSG:32632", transform=transform)
    found = read(run(path, tmp_path / "p.gpkg", chunk=8))
    chosen = found.columns["class_id"] == 1
    corners = [transform @ corner for corner in ((15, 10), (40, 10), (40, 30), (15, 30))]
    (polygon,) = found.polygons[chosen]
    assert polygon.symmetric_difference(shapely.Polygon(corners)).area < 1e-3
    (area,) = found.columns["area_m2"][chosen]
    assert area == pytest.approx(polygon.area, rel=1e-9)
    assert polygon.exterior.is_ccw


def test_a_turned_mask_in_degrees_has_the_area_of_its_outline(tmp_path, write_mask, read):
    transform = Affine(1e-4, 0, 10, 0, -1e-4, 60) @ Affine.rotation(30)
    path = write_mask(np.zeros((50, 40), np.uint8), crs="EPSG:4326", transform=transform)
    found = read(run(path, tmp_path / "p.gpkg", chunk=8))
    middle = found.polygons[0].centroid.y
    density = zone_area(middle - 0.5e-4, middle + 0.5e-4, 1e-4) / 1e-8
    (area,) = found.columns["area_m2"]
    assert area == pytest.approx(found.polygons[0].area * density, rel=1e-5)


def test_ground_control_points_place_the_polygons(tmp_path, write_mask, read):
    place = Affine(2, 0.3, 500_000, 0.2, -2, 5_400_000)
    spots = [(0, 0), (0, 20), (30, 0), (30, 20), (10, 7)]
    points = [GroundControlPoint(row, column, *(place @ (column, row))) for row, column in spots]
    path = write_mask(np.zeros((30, 20), np.uint8), gcps=points, crs="EPSG:32632")
    found = read(run(path, tmp_path / "p.gpkg", chunk=8))
    corners = [place @ corner for corner in ((0, 0), (20, 0), (20, 30), (0, 30))]
    assert found.polygons[0].symmetric_difference(shapely.Polygon(corners)).area < 1e-3
    assert found.columns["area_m2"][0] == pytest.approx(600 * abs(place.determinant), rel=1e-6)
    assert CRS.from_user_input(found.meta["crs"]).to_epsg() == 32632


def test_rational_polynomials_place_the_polygons(tmp_path, write_mask, read):
    ones = {"line_den_coeff": [1.0] + [0.0] * 19, "samp_den_coeff": [1.0] + [0.0] * 19}
    rpcs = RPC(
        height_off=50.0,
        height_scale=500.0,
        lat_off=45.0,
        lat_scale=0.01,
        line_off=10.0,
        line_scale=10.0,
        long_off=7.0,
        long_scale=0.01,
        samp_off=10.0,
        samp_scale=10.0,
        line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
        samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
        err_bias=None,
        err_rand=None,
        **ones,
    )
    path = write_mask(np.zeros((20, 20), np.uint8), rpcs=rpcs)
    found = read(run(path, tmp_path / "p.gpkg"))
    with RPCTransformer(rpcs, rpc_height=50.0) as transformer:
        x, y = transformer.xy([0, 20], [0, 20], offset="ul")
    left, bottom, right, top = shapely.bounds(found.polygons[0])
    assert (left, top, right, bottom) == pytest.approx((x[0], y[0], x[1], y[1]), abs=1e-9)
    assert found.polygons[0].centroid.distance(shapely.Point(7, 45)) < 0.002
    expected = zone_area(bottom, top, right - left)
    assert found.columns["area_m2"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_photo_has_polygons_in_pixels_and_unknown_areas(tmp_path, write_mask, read):
    path = write_mask(np.zeros((20, 30), np.uint8), transform=Affine.identity())
    found = read(run(path, tmp_path / "p.gpkg"))
    assert shapely.bounds(found.polygons[0]).tolist() == [0, -20, 30, 0]
    assert np.isnan(found.columns["area_m2"]).all()
    with pytest.raises(RasterError, match=r"min_area needs areas in m2, but .* has no CRS"):
        run(path, tmp_path / "p.gpkg", min_area=3)
    with pytest.raises(OutputError, match=r"longitude and latitude.*has no CRS; choose .gpkg"):
        run(path, tmp_path / "p.geojson")
