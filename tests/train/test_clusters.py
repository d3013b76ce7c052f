"""Clusters of validation tiles, with images laid out on the ground."""

import numpy as np
import pytest
from affine import Affine

from cvmh.geo.raster import write_raster
from cvmh.train.clusters import MOST_CLUSTERS, assign_clusters, find_places

SIDE = 16


@pytest.fixture
def lay(tmp_path):
    """Return a function that writes images at (column, row) of a grid of images."""

    def write(*cells, crs="EPSG:32632", angle=0.0, name="i"):
        paths = []
        for number, (column, row) in enumerate(cells):
            turn = 0.5 * np.exp(1j * np.radians(angle))
            corner = turn * (column - 1j * row) * SIDE + 500_000 + 5_400_000j
            place = Affine(turn.real, turn.imag, corner.real, turn.imag, -turn.real, corner.imag)
            path = tmp_path / f"{name}{number}.tif"
            write_raster(path, np.ones((1, SIDE, SIDE), "uint8"), crs=crs, transform=place)
            paths.append(path)
        return paths

    return write


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_images_side_by_side_or_one_apart_are_one_place(lay, angle):
    assert find_places(lay((0, 0), (1, 0), (1, 1), (9, 9), (3, 1), (9, 10), angle=angle)) == [
        0,
        0,
        0,
        1,
        0,
        1,
    ]


def test_images_of_another_projection_are_elsewhere(lay):
    here, there = lay((0, 0), (1, 0)), lay((0, 0), (9, 0), crs="EPSG:32633", name="j")
    assert find_places([here[0], *there, here[1]]) == [0, 1, 2, 0]


def test_an_image_that_lies_nowhere_leaves_the_places_unknown(lay, tmp_path):
    path = tmp_path / "plain.tif"
    write_raster(path, np.ones((1, SIDE, SIDE), "uint8"))
    assert find_places([*lay((0, 0)), path]) is None


def test_places_are_clusters_before_images_and_images_before_tiles():
    images = tuple(number for number in range(25) for _ in range(3))
    places = [number // 7 for number in range(25)]
    found = assign_clusters(images, places)
    assert (found.total, found.kind) == (4, "places")
    assert found.numbers == tuple(places[number] for number in images)
    # Two places say nothing about how much places differ.
    found = assign_clusters(images, [number % 2 for number in range(25)])
    assert (found.numbers, found.total, found.kind) == (images, 25, "images")
    found = assign_clusters((0, 0, 1), None)
    assert (found.numbers, found.total, found.kind) == ((0, 1, 2), 3, "tiles")


def test_neighbouring_clusters_are_joined_to_no_more_than_can_be_stored():
    for found in (
        assign_clusters((0,) * 100, None),
        assign_clusters(range(200), None),
        assign_clusters(range(200), range(200)),
    ):
        assert found.total == MOST_CLUSTERS
        assert list(found.numbers) == sorted(found.numbers)
        assert set(found.numbers) == set(range(MOST_CLUSTERS))
        assert np.ptp(np.bincount(found.numbers)) <= 1
    assert assign_clusters((), None).numbers == ()
