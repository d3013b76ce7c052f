"""Sizes on the ground, against closed forms of the ellipsoid written here."""

import math

import pytest
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.warp import transform as to_crs

from cvmh.geo.georeference import Georeference

# WGS 84.
A, F = 6378137.0, 1 / 298.257223563
E2 = F * (2 - F)


def prime_vertical(latitude):
    return A / math.sqrt(1 - E2 * math.sin(math.radians(latitude)) ** 2)


def meridian(latitude):
    return A * (1 - E2) / (1 - E2 * math.sin(math.radians(latitude)) ** 2) ** 1.5


def on(crs, transform, **given):
    crs = crs and CRS.from_user_input(crs)
    return Georeference(crs=crs, transform=transform, **given)


@pytest.mark.parametrize("latitude", [0, 35.7, -60, 89.9])
def test_in_degrees_a_step_right_shrinks_with_the_cosine_of_latitude(latitude):
    size = 1e-4
    grid = on("EPSG:4326", Affine(size, 0, 10, 0, -size, latitude + 50 * size))
    down, right = grid.scale_at(50, 80)
    cosine = math.cos(math.radians(latitude))
    assert right == pytest.approx(math.radians(size) * prime_vertical(latitude) * cosine, rel=1e-7)
    assert down == pytest.approx(math.radians(size) * meridian(latitude), rel=1e-7)
    side = grid.ground_sampling_distance(100, 160)
    assert side == pytest.approx(math.sqrt(down * right), rel=1e-7)


@pytest.mark.parametrize("y", [0.0, 4e6, -1.2e7])
def test_metres_of_web_mercator_are_longer_than_those_of_the_ground(y):
    grid = on("EPSG:3857", Affine(10, 0, 1e6, 0, -10, y))
    latitude = math.degrees(math.atan(math.sinh(y / A)))
    cosine = math.cos(math.radians(latitude))
    down, right = grid.scale_at(0, 0)
    assert right == pytest.approx(10 / A * prime_vertical(latitude) * cosine, rel=1e-6)
    assert down == pytest.approx(10 / A * meridian(latitude) * cosine, rel=1e-6)


def test_on_the_central_meridian_of_utm_the_ground_is_a_2500th_longer():
    grid = on("EPSG:32633", Affine(0.05, 0, 500_000, 0, -0.05, 5_400_000))
    assert grid.scale_at(0, 0) == pytest.approx([0.05 / 0.9996] * 2, rel=1e-6)


def test_feet_become_metres():
    grid = on("EPSG:2263", Affine(2, 0, 984_250, 0, -3, 2e5))
    down, right = grid.scale_at(0, 0)
    foot = 1200 / 3937
    assert (down, right) == pytest.approx((3 * foot, 2 * foot), rel=1e-4)


@pytest.mark.parametrize("angle", [27, 90, 180, -135])
def test_rotation_does_not_change_a_square_pixel(angle):
    grid = on("EPSG:32633", Affine(2, 0, 500_000, 0, -2, 5e6) @ Affine.rotation(angle))
    assert grid.scale_at(3, 4) == pytest.approx([2 / 0.9996] * 2, rel=1e-6)
    assert grid.ground_sampling_distance(6, 8) == pytest.approx(2 / 0.9996, rel=1e-6)


def test_rotation_in_degrees_mixes_north_and_east():
    grid = on("EPSG:4326", Affine(0, 1e-4, 10, 2e-4, 0, 60))
    down, right = grid.scale_at(0, 0)
    cosine = math.cos(math.radians(60))
    assert down == pytest.approx(math.radians(1e-4) * prime_vertical(60) * cosine, rel=1e-6)
    assert right == pytest.approx(math.radians(2e-4) * meridian(60), rel=1e-6)


def test_shear_lengthens_a_step_and_leaves_the_side_of_the_equal_square():
    grid = on("EPSG:32633", Affine(1, 1, 500_000, 0, -1, 5e6))
    assert grid.scale_at(0, 0) == pytest.approx([math.sqrt(2) / 0.9996, 1 / 0.9996], rel=1e-6)
    assert grid.ground_sampling_distance(0, 0) == pytest.approx(1 / 0.9996, rel=1e-6)


def test_ground_control_points_count_as_the_map_that_fits_them():
    points = [
        GroundControlPoint(row, column, 10 + column * 1e-4, 45 - row * 1e-4)
        for row, column in [(0, 0), (0, 90), (90, 0), (90, 90)]
    ]
    crs = CRS.from_epsg(4326)
    grid = on(None, Affine.identity(), gcps=tuple(points), gcps_crs=crs)
    exact = on("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 45))
    assert grid.scale_at(45, 45) == pytest.approx(exact.scale_at(45, 45), rel=1e-6)


def test_a_pixel_on_the_antimeridian_is_not_as_wide_as_the_globe():
    x, y = to_crs("EPSG:4326", "EPSG:32760", [180], [-18])[:2]
    grid = on("EPSG:32760", Affine(10, 0, x[0] - 5, 0, -10, y[0] + 5))
    assert grid.scale_at(0.5, 0.5) == pytest.approx([10, 10], rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, Affine(1, 0, 5, 0, -1, 5)),
        ("EPSG:32633", Affine.identity()),
        ("EPSG:4326", Affine(0, 0, 10, 0, 0, 50)),
        ('LOCAL_CS["plan",UNIT["metre",1]]', Affine(1, 0, 5, 0, -1, 5)),
    ],
)
def test_without_a_place_on_the_ground_sizes_are_unknown(crs, transform):
    grid = on(crs, transform)
    assert grid.scale_at(1, 1) is None
    assert grid.ground_sampling_distance(2, 2) is None
