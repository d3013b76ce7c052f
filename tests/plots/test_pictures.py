from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from cvmh.classes import ISPRS, NODATA_ID
from cvmh.plots import (
    NODATA_COLOUR,
    RIGHT_COLOUR,
    WRONG_COLOUR,
    colour_errors,
    colour_ids,
    find_range,
    preview,
    stretch,
)

IDS = np.array([[0, 5, 255], [4, 2, 6]], dtype=np.uint8)


def read_png(path):
    assert path.read_bytes().startswith(b"\x89PNG")
    return (imread(path)[..., :3] * 255).round().astype(np.uint8)


def has_colour(picture, rgb):
    return (picture == rgb).all(axis=-1).any()


def test_ids_become_the_colours_of_their_classes_and_the_rest_light_grey():
    picture = colour_ids(IDS, ISPRS)
    assert (picture.shape, picture.dtype) == ((2, 3, 3), np.uint8)
    for row, column in np.ndindex(IDS.shape):
        value = int(IDS[row, column])
        expected = ISPRS.colours[value] if value < len(ISPRS) else NODATA_COLOUR
        assert tuple(picture[row, column]) == expected
    assert NODATA_ID in IDS


def test_errors_are_red_what_is_right_grey_and_what_does_not_count_hatched():
    labels = np.full((40, 40), NODATA_ID, np.uint8)
    labels[:10], labels[10:20] = 2, 3
    ids = np.full((40, 40), 2, np.uint8)
    picture = colour_errors(labels, ids)
    assert (picture[:10] == RIGHT_COLOUR).all() and (picture[10:20] == WRONG_COLOUR).all()
    hatched = picture[20:]
    lines = (hatched == RIGHT_COLOUR).all(axis=-1)
    assert 0.1 < lines.mean() < 0.5
    assert (hatched[~lines] == NODATA_COLOUR).all()


def test_one_stretch_serves_all_bands():
    image = np.stack([np.full((10, 10), level) for level in (100.0, 200.0, 300.0)])
    picture = stretch(image, np.ones((10, 10), bool))
    assert picture.shape == (10, 10, 3)
    assert picture.reshape(-1, 3).tolist() == [[0, 127, 255]] * 100


def test_the_extreme_two_percent_do_not_set_the_stretch():
    ramp = np.tile(np.arange(1000.0), (3, 1)).reshape(3, 20, 50)
    ramp[:, 0, 0], ramp[:, -1, -1] = -1e6, 1e6
    picture = stretch(ramp, np.ones((20, 50), bool))
    middle = picture[10, 0].astype(int)
    assert (abs(middle - 127) < 4).all()
    assert tuple(picture[0, 0]) == (0, 0, 0)
    assert tuple(picture[-1, -1]) == (255, 255, 255)


@pytest.mark.parametrize("outside", [0.0, 1e30, np.nan, np.inf, -np.inf])
def test_invalid_pixels_are_light_grey_and_do_not_set_the_stretch(outside):
    image = np.random.default_rng(0).random((3, 8, 9)).astype(np.float32) * 0.3
    validity = np.ones((8, 9), bool)
    validity[:3, :4] = False
    full = stretch(np.where(validity, image, image[:, validity].mean()), validity)
    picture = stretch(np.where(validity, image, np.float32(outside)), validity)
    np.testing.assert_array_equal(picture, full)
    assert (picture[~validity] == NODATA_COLOUR).all()
    assert picture[validity].min() == 0 and picture[validity].max() == 255


@pytest.mark.parametrize("num_bands", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_fewer_than_three_bands_show_the_first_in_grey(num_bands, dtype):
    image = np.arange(num_bands * 50).reshape(num_bands, 5, 10).astype(dtype)
    picture = stretch(image, np.ones((5, 10), bool))
    assert (picture == picture[..., :1]).all()
    assert (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()
    assert picture.min() == 0 and picture.max() == 255


def test_more_than_three_bands_show_the_first_three():
    image = np.random.default_rng(1).integers(0, 4000, (10, 6, 7), dtype=np.uint16)
    validity = np.ones((6, 7), bool)
    np.testing.assert_array_equal(stretch(image, validity), stretch(image[:3], validity))


def test_a_flat_or_an_empty_image_is_a_picture_too():
    flat = np.full((3, 4, 4), 7, dtype=np.uint8)
    assert len(np.unique(stretch(flat, np.ones((4, 4), bool)))) == 1
    assert (stretch(flat, np.zeros((4, 4), bool)) == NODATA_COLOUR).all()


def test_one_stretch_may_serve_the_parts_of_an_image():
    image = np.random.default_rng(2).integers(0, 4000, (3, 20, 30), dtype=np.uint16)
    validity = np.ones((20, 30), bool)
    whole, limits = stretch(image, validity), find_range(image, validity)
    part = stretch(image[:, 5:9, 10:], validity[5:9, 10:], limits)
    np.testing.assert_array_equal(part, whole[5:9, 10:])
    assert limits == pytest.approx(np.percentile(image, (2, 98)))


@pytest.mark.parametrize("num_panels", [1, 3])
def test_a_preview_shows_its_panels_side_by_side_and_the_legend(tmp_path, num_panels):
    colours = [(12, 34, 56), (200, 10, 20), (1, 222, 3)][:num_panels]
    panels = {
        f"panel {index}": np.full((40, 40, 3), rgb, dtype=np.uint8)
        for index, rgb in enumerate(colours)
    }
    path = tmp_path / "preview.png"
    preview(path, panels, ISPRS, title="a title")
    picture = read_png(path)
    assert picture.shape[:2] == pytest.approx((5.4 * 110, 4.4 * 110 * num_panels), abs=2)
    places = [np.argwhere((picture == rgb).all(axis=-1))[:, 1] for rgb in colours]
    # Each panel takes a good part of the width, and they stand in order.
    assert all(np.ptp(columns) > 300 for columns in places)
    for left, right in pairwise(places):
        assert left.max() < right.min()
    assert all(has_colour(picture, rgb) for rgb in [*ISPRS.colours, NODATA_COLOUR])
