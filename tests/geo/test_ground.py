"""Areas of pixels, against what is known of the whole earth and of equal-area maps."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as to_crs

from cvmh.geo.georeference import Georeference
from cvmh.geo.ground import Ground

# Of the whole ellipsoid WGS 84, in m2.
SURFACE = 510_065_621_724_000.0


def areas(crs, transform, rows, columns=0.5):
    ground = Ground(Georeference(crs=CRS.from_user_input(crs), transform=transform))
    centres = np.asarray(rows, dtype=np.float64) + 0.5
    return ground.pixel_areas(centres, np.full(len(centres), columns))


@pytest.mark.parametrize("rows", [180, 1800])
def test_the_rows_of_a_map_of_the_world_make_up_its_surface(rows):
    size = 180 / rows
    grid = Affine(size, 0, -180, 0, -size, 90)
    total = areas("EPSG:4326", grid, np.arange(rows)).sum() * 2 * rows
    assert total == pytest.approx(SURFACE, rel=2e-5)


def test_an_equal_area_map_and_degrees_agree_on_a_region():
    # EASE-Grid 2.0: what lies between 40 and 41 degrees north, all around.
    x, y = to_crs("EPSG:4326", "EPSG:6933", [0, 180, 0], [40, 40, 41])[:2]
    exact = 2 * x[1] * (y[2] - y[0])
    total = areas("EPSG:4326", Affine(0.01, 0, 0, 0, -0.01, 41), np.arange(100)).sum() * 36_000
    assert total == pytest.approx(exact, rel=1e-6)


def test_an_equal_area_map_and_web_mercator_agree_on_a_region():
    x, y = to_crs("EPSG:6933", "EPSG:3857", [0, 1e6], [5e6, 6e6])[:2]
    side = (y[1] - y[0]) / 2000
    column = areas("EPSG:3857", Affine(side, 0, x[0], 0, -side, y[1]), np.arange(2000))
    assert column.sum() * (x[1] - x[0]) / side == pytest.approx(1e12, rel=1e-6)


def test_in_a_projected_crs_areas_are_those_of_the_map():
    utm = Affine(2, 0, 500_000, 0, -3, 5e6) @ Affine.rotation(31)
    np.testing.assert_allclose(areas("EPSG:32633", utm, range(5)), [6] * 5, rtol=1e-6)
    feet = Affine(2, 0, 984_250, 0, -3, 2e5)
    np.testing.assert_allclose(areas("EPSG:2263", feet, [7]), 6 * (1200 / 3937) ** 2, rtol=1e-6)
