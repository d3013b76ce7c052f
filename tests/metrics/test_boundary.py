"""Boundary scores against a brute-force count: every pixel pair, distances by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmh.classes import ISPRS, ClassTable, SegClass
from cvmh.errors import ConfigError
from cvmh.metrics.boundary import (
    check_width,
    count_boundaries,
    halo_of,
    near_other_class,
    score_boundaries,
)

IGNORED = 255


def near_by_hand(ids, radius):
    """Compare every pixel with every other one."""
    rows, columns = np.indices(ids.shape)
    near = np.zeros(ids.shape, dtype=bool)
    for (row, column), own in np.ndenumerate(ids):
        if own == IGNORED:
            continue
        distance = np.hypot(rows - row, columns - column)
        near[row, column] = np.any((distance <= radius) & (ids != own) & (ids != IGNORED))
    return near


def counts_by_hand(labels, masks, num_classes, width):
    """Count as the definitions say, a class at a time, over the whole scene."""
    masks = np.where(labels == IGNORED, IGNORED, masks)
    band_label, band_mask = near_by_hand(labels, width), near_by_hand(masks, width)
    edge_label, edge_mask = near_by_hand(labels, 1), near_by_hand(masks, 1)
    counts = np.zeros((num_classes, 7), dtype=int)
    for number in range(num_classes):
        inner_label = band_label & (labels == number)
        inner_mask = band_mask & (masks == number)
        outline_label = np.argwhere(edge_label & (labels == number))
        outline_mask = np.argwhere(edge_mask & (masks == number))
        counts[number] = (
            inner_label.sum(),
            inner_mask.sum(),
            (inner_label & inner_mask).sum(),
            len(outline_label),
            met(outline_label, outline_mask, width),
            len(outline_mask),
            met(outline_mask, outline_label, width),
        )
    return counts


def met(points, others, width):
    return sum(
        any(np.hypot(*(point - other)) <= width for other in others.astype(float))
        for point in points.astype(float)
    )


def make_ids(seed, shape, num_classes, *, ignored=0.1):
    """Blocks of classes, some single pixels of others, and some pixels that do not count."""
    rng = np.random.default_rng(seed)
    size = (-(-shape[0] // 4), -(-shape[1] // 4))
    coarse = rng.integers(0, num_classes, size)
    ids = coarse.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    ids = np.where(rng.random(shape) < 0.05, rng.integers(0, num_classes, shape), ids)
    return np.where(rng.random(shape) < ignored, IGNORED, ids).astype(np.uint8)


shapes = st.tuples(st.integers(1, 13), st.integers(1, 15))


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=st.integers(0, 2**31), radius=st.integers(1, 6))
def test_near_another_class_is_what_comparing_all_pairs_of_pixels_finds(shape, seed, radius):
    ids = make_ids(seed, shape, 4)
    np.testing.assert_array_equal(near_other_class(ids, radius), near_by_hand(ids, radius))


@settings(deadline=None, max_examples=30)
@given(
    shape=shapes,
    seed=st.integers(0, 2**31),
    width=st.integers(1, 5),
    num_classes=st.sampled_from([2, 3, 9]),
)
def test_the_counts_are_those_of_the_definitions(shape, seed, width, num_classes):
    labels = make_ids(seed, shape, num_classes)
    masks = make_ids(seed + 1, shape, num_classes, ignored=0)
    masks = np.where(np.random.default_rng(seed).random(shape) < 0.5, labels, masks)
    masks[masks == IGNORED] = 0
    found = count_boundaries(labels, masks, num_classes, width=width)
    np.testing.assert_array_equal(found, counts_by_hand(labels, masks, num_classes, width))


@pytest.mark.parametrize("num_classes", [64, 65, 130, 254])
def test_more_classes_than_a_word_has_bits_are_counted_alike(num_classes):
    labels = make_ids(1, (24, 24), num_classes)
    masks = np.roll(labels, 1, axis=0)
    masks[masks == IGNORED] = num_classes - 1
    found = count_boundaries(labels, masks, num_classes, width=2)
    np.testing.assert_array_equal(found, counts_by_hand(labels, masks, num_classes, 2))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 40),
    rows=st.integers(1, 17),
    width=st.integers(1, 5),
)
def test_strips_with_a_halo_add_up_to_the_whole_scene(seed, height, rows, width):
    labels = make_ids(seed, (height, 23), 5)
    masks = make_ids(seed + 1, (height, 23), 5, ignored=0)
    total = np.zeros((5, 7), dtype=np.int64)
    halo = halo_of(width)
    for first in range(0, height, rows):
        top, end = max(0, first - halo), min(height, first + rows + halo)
        core = slice(first - top, min(first + rows, height) - top)
        total += count_boundaries(labels[top:end], masks[top:end], 5, width=width, core=core)
    whole = count_boundaries(labels, masks, 5, width=width)
    np.testing.assert_array_equal(total, whole)


def test_the_rim_of_an_ignored_region_and_of_the_scene_is_no_outline():
    labels = np.zeros((12, 12), dtype=np.uint8)
    labels[3:7, 3:7] = IGNORED
    masks = np.zeros_like(labels)
    # What is predicted where nothing counts, draws no outline either.
    masks[4:6, 4:6] = 1
    assert not count_boundaries(labels, masks, 2, width=3).any()


def test_a_border_that_is_off_by_less_than_the_width_is_met():
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[:, 10:] = 1
    masks = np.zeros_like(labels)
    masks[:, 12:] = 1
    classes = ClassTable(ISPRS.classes[:2])
    near, far = (
        score_boundaries(count_boundaries(labels, masks, 2, width=w), classes, width=w, gsd=0.5)
        for w in (2, 1)
    )
    assert (near.mf1, far.mf1) == (1.0, 0.0)
    # Bands of two columns a side: columns 8, 9 and 10, 11 of the label, 10, 11 and 12, 13 of the
    # mask; as one class, they have no column in common.
    assert near.miou == 0.0
    assert (near.width, near.metres) == (2, 1.0)
    wide = score_boundaries(count_boundaries(labels, masks, 2, width=4), classes, width=4)
    # Columns 6..9 against 8..11 in class 0, and 10..13 against 12..15 in class 1: 2 of 6.
    assert [row.iou for row in wide.classes.values()] == [pytest.approx(1 / 3)] * 2
    assert wide.metres is None


def test_a_perfect_mask_scores_one_and_a_class_without_outline_has_no_score():
    labels = make_ids(3, (40, 40), 3, ignored=0)
    found = score_boundaries(count_boundaries(labels, labels, 6, width=3), ISPRS, width=3)
    rows = list(found.classes.values())
    assert [(row.iou, row.f1, row.precision, row.recall) for row in rows[:3]] == [(1.0,) * 4] * 3
    assert [(row.iou, row.f1) for row in rows[3:]] == [(None, None)] * 3
    assert (found.miou, found.mf1) == (1.0, 1.0)


def test_an_outline_that_the_mask_does_not_have_scores_zero():
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[5:10, 5:10] = 1
    counts = count_boundaries(labels, np.zeros_like(labels), 2, width=3)
    found = score_boundaries(counts, ClassTable(ISPRS.classes[:2]), width=3)
    building = found.classes["building"]
    assert (building.iou, building.f1) == (0.0, 0.0)
    assert (building.precision, building.recall) == (None, 0.0)


def test_a_class_that_is_left_out_has_scores_but_no_part_in_the_means():
    labels, masks = make_ids(4, (30, 30), 3), make_ids(5, (30, 30), 3, ignored=0)
    table = ClassTable(
        tuple(SegClass(id=i, name=name, rgb=(i, i, i)) for i, name in enumerate("abc"))
    )
    counts = count_boundaries(labels, masks, 3, width=2)
    found = score_boundaries(counts, table, width=2, left_out=["b"])
    rows = found.classes
    assert rows["b"].iou is not None
    assert found.miou == pytest.approx((rows["a"].iou + rows["c"].iou) / 2)
    assert found.mf1 == pytest.approx((rows["a"].f1 + rows["c"].f1) / 2)


@pytest.mark.parametrize("width", [0, -3, 101])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ConfigError, match=f"1 to 100 pixels, got {width}; 3 is common"):
        check_width(width)
