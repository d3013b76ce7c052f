import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cvmh.geo.area import Area
from cvmh.geo.tiling import Window

HEIGHT, WIDTH = 700, 900
ALL = Window(0, 0, HEIGHT, WIDTH)


def star(seed, x, y, radius, points=40):
    """Return a jagged polygon around a point."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radii = rng.uniform(radius / 3, radius, points)
    return shapely.make_valid(
        shapely.Polygon(np.c_[x + radii * np.cos(angles), y + radii * np.sin(angles)])
    )


def inside(polygons, window=ALL):
    """Say of each pixel's centre, one by one, whether a polygon contains it."""
    y, x = np.mgrid[window.rows, window.columns] + 0.5
    shapely.prepare(polygons)
    return np.any([shapely.contains_xy(polygon, x, y) for polygon in polygons], axis=0)


def coast(points=20_000):
    """Return one long ragged outline."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = 250 + 60 * np.sin(9 * angles) + np.random.default_rng(5).uniform(0, 0.2, points)
    return shapely.Polygon(np.c_[450 + radii * np.cos(angles), 350 + radii * np.sin(angles)])


HOLED = shapely.box(100, 50, 800, 600).difference(star(6, 400, 300, 200))
AREAS = {
    "one": [star(0, 450, 350, 300)],
    "several, one reaching out": [
        star(1, 50, 60, 90),
        star(2, 880, 500, 200),
        star(3, 300, 300, 9),
    ],
    "with a hole": [HOLED],
    "many vertices": [coast()],
    "larger than the raster": [shapely.box(-1e4, -1e4, 1e4, 1e4)],
    "along the edges of pixels and cells": [shapely.box(256, 256, 512, 513)],
    "smaller than a pixel": [shapely.box(10.4, 10.4, 10.6, 10.6)],
    "thin": [shapely.Polygon([(0, 0), (899, 640), (900, 640), (2, 0)])],
}


@pytest.mark.parametrize("name", AREAS)
def test_a_pixel_belongs_to_the_area_if_its_centre_does(name):
    area = Area(AREAS[name], HEIGHT, WIDTH)
    expected = inside(AREAS[name])
    np.testing.assert_array_equal(area.read(ALL), expected)
    shrunk = area.look(HEIGHT // 7, WIDTH // 9)
    np.testing.assert_array_equal(shrunk, expected[3::7, 4::9])
    assert area.share == pytest.approx(expected.mean(), abs=2e-3)
    rows, columns = np.arange(0, HEIGHT, 50)[:, None], np.arange(0, WIDTH, 50)[None]
    meets = area.meets(rows, rows + 50, columns, columns + 50)
    assert (meets >= expected.reshape(14, 50, 18, 50).any(axis=(1, 3))).all()


def windows(height, width):
    return st.builds(
        lambda row, column, high, wide: Window(
            row, column, min(high, height - row), min(wide, width - column)
        ),
        st.integers(0, height - 1),
        st.integers(0, width - 1),
        st.integers(1, 400),
        st.integers(1, 400),
    )


@given(windows(HEIGHT, WIDTH))
def test_the_answer_for_a_pixel_does_not_depend_on_the_window(window):
    area, whole = TIES
    np.testing.assert_array_equal(area.read(window), whole[window.rows, window.columns])


# Edges that run exactly through the centres of pixels, where rounding decides.
TIES_POLYGON = shapely.Polygon([(0.5, 0.5), (899.5, 150.5), (600.5, 699.5), (0.5, 300.5)])
TIES_AREA = Area([TIES_POLYGON, shapely.box(700.5, 400.5, 800.5, 500.5)], HEIGHT, WIDTH)
TIES = TIES_AREA, TIES_AREA.read(ALL)


def test_neighbouring_polygons_leave_no_gap():
    halves = [shapely.box(100.5, 100.5, 300.5, 400.5), shapely.box(300.5, 100.5, 600.5, 400.5)]
    joined = Area(halves, HEIGHT, WIDTH).read(ALL)
    assert joined[101:400, 101:600].all()


def test_windows_far_from_any_polygon_are_not_met():
    area = Area([shapely.box(100, 100, 200, 200)], 100_000, 100_000)
    starts = np.arange(0, 100_000, 192)
    meets = area.meets(starts[:, None], starts[:, None] + 256, starts[None], starts[None] + 256)
    assert meets[0, 0]
    assert meets.sum() < 9
    assert not area.read(Window(90_000, 90_000, 300, 300)).any()


def test_an_area_that_does_not_meet_the_raster_is_empty():
    area = Area([shapely.box(-50, -50, 0, 20)], HEIGHT, WIDTH)
    assert area.is_empty
    assert not area.read(ALL).any()
    assert not area.meets(0, HEIGHT, 0, WIDTH)
