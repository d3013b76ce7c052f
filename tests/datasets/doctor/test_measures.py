"""The measures behind the checks, each against a slow or closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from cvmh.datasets.doctor.anchors import PATCH, find_anchors, find_common, join
from cvmh.datasets.doctor.shift import REACH, Correlation, correlate
from cvmh.datasets.doctor.thumb import SIDE, ThumbSum, find_alike
from cvmh.datasets.doctor.values import nearest_class
from cvmh.geo.footprint import Footprint, boxes_in_metres, gaps_between
from cvmh.geo.tiling import Window

CLASS_COLOURS = {
    (255, 255, 255): 0,
    (0, 0, 255): 1,
    (0, 255, 255): 2,
    (0, 255, 0): 3,
    (255, 255, 0): 4,
    # Another spelling of a class is no reason to doubt.
    (252, 255, 0): 4,
}


def slow_correlation(grey, ids, rows, columns):
    """Return the correlation at one shift by loops over the steps."""
    total = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        cap = np.percentile(steps, 97)
        steps = np.minimum(steps, cap) / cap
        steps -= steps.mean()
        borders = np.diff(ids.astype(int), axis=axis) != 0
        for row, column in np.argwhere(borders):
            if 0 <= row + rows < steps.shape[0] and 0 <= column + columns < steps.shape[1]:
                total += steps[row + rows, column + columns]
    return total


def test_the_correlation_agrees_with_loops(smooth):
    grey = smooth(0, 50, 61).astype(np.float32)
    ids = (smooth(1, 50, 61) > 0.5).astype(np.uint8)
    found = correlate(grey, ids, np.ones(grey.shape, dtype=bool))
    for shift in ((0, 0), (3, -5), (-7, 2), (24, 24), (-24, 11)):
        value = found.surface[REACH + shift[0], REACH + shift[1]]
        assert value == pytest.approx(slow_correlation(grey, ids, *shift), abs=1e-3)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, 0), (0, -11), (-23, 24), (2, 1)])
def test_the_shift_of_a_label_is_found(smooth, down, right):
    grey = smooth(3, 200, 260)
    ids = (smooth(3, 200, 260) > 0.5).astype(np.uint8)
    moved = np.roll(ids, (down, right), (0, 1))
    valid = np.ones(grey.shape, dtype=bool)
    total = Correlation.empty()
    total.add(correlate(grey.astype(np.float32), moved, valid))
    shift = total.find_shift()
    assert (shift.rows, shift.columns) == (down, right)
    assert shift.peak > 8 and total.borders > 200


def test_ignored_pixels_and_missing_data_make_no_borders():
    grey = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    ids = np.zeros((100, 100), dtype=np.uint8)
    ids[30:60, 30:60] = 255
    assert correlate(grey, ids, np.ones(grey.shape, dtype=bool)).borders == 0
    ids[10:20, 10:20] = 1
    assert not correlate(grey, ids, np.zeros(grey.shape, dtype=bool)).surface.any()


def pixels_of(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def whole(array):
    return find_anchors(array, Window(0, 0, *array.shape), bits=6)


def test_anchors_are_the_same_wherever_a_patch_lies():
    scene = pixels_of(0, 90, 120)
    part = whole(scene[11:71, 23:99])
    at = {(r, c): h for h, r, c in zip(*map(np.ndarray.tolist, whole(scene)), strict=True)}
    assert len(part.hashes) > 20
    for value, row, column in zip(*map(np.ndarray.tolist, part), strict=True):
        assert at[row + 11, column + 23] == value


def test_about_one_patch_in_64_is_an_anchor():
    number = len(whole(pixels_of(1, 500, 500)).hashes)
    assert number == pytest.approx((500 - PATCH + 1) ** 2 / 64, rel=0.1)


def test_flat_ground_has_no_anchors():
    flat = np.full((200, 200), 7, dtype=np.uint8)
    flat[::9] = 8
    assert len(whole(flat).hashes) == 0


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_images_of_one_scene_are_found_at_their_offset(dtype):
    scene = pixels_of(2, 150, 150).astype(dtype)
    first, second, other = scene[:100, :120], scene[37:, 61:], pixels_of(3, 100, 100).astype(dtype)
    images = [first, second, other]
    anchors = [whole(image) for image in images]
    (common,) = find_common(anchors, [image.shape for image in images], [0, 1, 1])
    assert (common.first, common.second) == (0, 1)
    assert common.in_first == Window(37, 61, 63, 59)
    assert common.in_second == Window(0, 0, 63, 59)
    shown = [images[0][common.in_first.rows, common.in_first.columns]]
    shown.append(images[1][common.in_second.rows, common.in_second.columns])
    assert np.array_equal(*shown)


def test_images_of_one_split_are_not_compared():
    image = pixels_of(4, 80, 80)
    assert list(find_common([whole(image), whole(image)], [(80, 80)] * 2, [0, 0])) == []
    assert list(find_common([join([]), join([])], [(4, 4)] * 2, [0, 1])) == []


@pytest.mark.parametrize("turn", range(8))
def test_a_picture_is_found_in_each_of_the_eight_positions(smooth, turn):
    picture = 200 * smooth(5, 123, 123, cell=9)
    moved = np.rot90(picture.T if turn >= 4 else picture, turn % 4)
    moved = moved + np.random.default_rng(0).normal(0, 3, moved.shape)
    others = [200 * smooth(seed, 123, 123, cell=9) for seed in range(6, 10)]
    thumbs = [thumb_of(image) for image in (picture, *others, moved)]
    (likeness,) = find_alike(thumbs)
    assert (likeness.first, likeness.second) == (0, 5)
    assert bool(likeness.turn) == bool(turn)


def test_flat_pictures_and_missing_ones_are_like_nothing():
    flat = thumb_of(np.full((64, 64), 30.0))
    assert list(find_alike([flat, flat, None])) == []


def thumb_of(picture, parts=((0, 40), (40, 123))):
    total = ThumbSum(*picture.shape)
    for first, end in parts:
        rows = picture[first:end].astype(np.float32)
        total.add(rows, Window(first, 0, *rows.shape))
    return total.result()


def test_a_thumb_holds_the_means_of_its_cells():
    picture = np.random.default_rng(0).random((64, 96))
    expected = picture.reshape(SIDE, 4, SIDE, 6).mean(axis=(1, 3))
    assert np.allclose(thumb_of(picture, ((0, 13), (13, 64))), expected, atol=1e-6)


def test_the_nearest_colour_is_suggested_only_where_it_is_clear():
    assert nearest_class((255, 204, 0), CLASS_COLOURS) == (255, 255, 0)
    assert nearest_class((254, 255, 254), CLASS_COLOURS) == (255, 255, 255)
    assert nearest_class((0, 128, 255), CLASS_COLOURS) is None
    assert nearest_class((128, 128, 128), CLASS_COLOURS) is None


corner = st.integers(-50, 50)
side = st.integers(1, 40)


@given(corner, corner, side, side, corner, corner, side, side)
def test_gaps_between_boxes_agree_with_counting_pixels(x, y, w, h, p, q, v, u):
    one, other = np.array([x, y, x + w, y + h]), np.array([[p, q, p + v, q + u]])
    across, along = gaps_between(one, other)[0]
    shared = (
        len({*range(x, x + w)} & {*range(p, p + v)}),
        len({*range(y, y + h)} & {*range(q, q + u)}),
    )
    assert (max(-across, 0), max(-along, 0)) == shared
    assert max(across, 0) == max(0, p - (x + w), x - (p + v))
    assert max(along, 0) == max(0, q - (y + h), y - (q + u))


def test_boxes_of_two_crs_are_compared_in_metres():
    utm = Footprint(CRS.from_epsg(32632), 500_000, 5_400_000, 500_100, 5_400_200, 0.9996, 0.9996)
    degrees = Footprint(CRS.from_epsg(4326), 9.0, 48.75, 9.01, 48.76, 73_000, 111_000)
    boxes = boxes_in_metres([utm, degrees])
    # The middle meridian of zone 32 is 9 degrees east.
    assert boxes[0, 0] == pytest.approx(boxes[1, 0], abs=1)
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(100, rel=0.01)
    assert boxes[0, 3] - boxes[0, 1] == pytest.approx(200, rel=0.01)
