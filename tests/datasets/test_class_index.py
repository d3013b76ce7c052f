import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cvmh.classes import NODATA_ID
from cvmh.datasets.class_index import CELL, ClassCounter, ClassIndex, class_odds

CLASSES = 4


def count(labels, *, rows=10_000, num_classes=CLASSES):
    counter = ClassCounter(num_classes)
    for label in labels:
        counter.begin(*label.shape)
        for row in range(0, len(label), rows):
            counter.add(row, label[row : row + rows])
    return counter.result()


def draw_labels(seed, *sizes):
    generator = np.random.default_rng(seed)
    ids = np.array([0, 0, 0, 0, 1, 1, 3, NODATA_ID], np.uint8)
    labels = [ids[generator.integers(0, 8, size)] for size in sizes]
    # Cells of one class, and one without any.
    labels[0][:CELL, :CELL] = 1
    labels[-1][-3:] = NODATA_ID
    return labels


def cells_of(label):
    for row in range(0, label.shape[0], CELL):
        for column in range(0, label.shape[1], CELL):
            yield row, column, label[row : row + CELL, column : column + CELL]


@settings(max_examples=20, deadline=None)
@given(
    heights=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    width=st.integers(1, 300),
    rows=st.sampled_from([1, 7, 100, 128, 129, 1000]),
)
def test_every_cell_counts_what_numpy_counts(heights, width, rows):
    labels = draw_labels(width, *((height, width) for height in heights))
    index = count(labels, rows=rows)
    cells = [cell for label in labels for _, _, cell in cells_of(label)]
    dense = np.zeros((CLASSES, len(cells)), int)
    dense[index.classes, index.cells] = index.counts
    expected = [np.bincount(cell.ravel(), minlength=256)[:CLASSES] for cell in cells]
    np.testing.assert_array_equal(dense.T, expected)
    assert (index.counts > 0).all()
    together = np.concatenate([label.ravel() for label in labels])
    np.testing.assert_array_equal(
        index.class_pixels, np.bincount(together, minlength=256)[:CLASSES]
    )


def test_it_is_the_same_when_read_back():
    index = count(draw_labels(0, (300, 200), (5, 400)))
    again = ClassIndex.from_bytes(index.to_bytes())
    for name in ("sizes", "num_classes", "classes", "cells", "counts"):
        one, two = getattr(index, name), getattr(again, name)
        np.testing.assert_array_equal(one, two)
        assert np.asarray(one).dtype == np.asarray(two).dtype
    generators = np.random.default_rng(0), np.random.default_rng(0)
    odds = class_odds(index.class_pixels, 0.5)
    for _ in range(20):
        assert index.draw(generators[0], odds) == again.draw(generators[1], odds)


def test_a_large_split_has_a_small_index():
    label = np.repeat(np.repeat(np.arange(36, dtype=np.uint8) % 6, 1000)[:, None], 6000, 1)
    scene = label.reshape(6, 6000, 6000)[0]
    index = count([scene], num_classes=6)
    assert len(index.to_bytes()) < 20_000


def test_a_cell_is_drawn_in_proportion_to_its_pixels_of_the_class():
    labels = draw_labels(1, (300, 260), (130, 90))
    index = count(labels)
    cells = {
        (number, row, column): np.bincount(cell.ravel(), minlength=256)[:CLASSES]
        for number, label in enumerate(labels)
        for row, column, cell in cells_of(label)
    }
    keys = list(cells)
    table = np.array([cells[key] for key in keys], float).T
    generator = np.random.default_rng(0)
    odds = np.array([0.5, 0.3, 0.0, 0.2])
    drawn, times = np.zeros_like(table), 6000
    for _ in range(times):
        number, cell, class_id = index.draw(generator, odds)
        label = labels[number]
        height, width = label.shape
        assert cell.height == min(CELL, height - cell.row)
        assert cell.width == min(CELL, width - cell.column)
        drawn[class_id, keys.index((number, cell.row, cell.column))] += 1
    for class_id in (0, 1, 3):
        share = table[class_id] / table[class_id].sum()
        expected = share * drawn[class_id].sum()
        assert (drawn[class_id][expected == 0] == 0).all()
        known = expected > 0
        assert chisquare(drawn[class_id][known], expected[known]).pvalue > 0.001
    assert chisquare(drawn.sum(axis=1)[[0, 1, 3]], np.array([0.5, 0.3, 0.2]) * times).pvalue > 0.001


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (0, [0.9, 0.09, 0, 0.01]),
        (1, [1 / 3, 1 / 3, 0, 1 / 3]),
        (0.5, np.array([0.9**0.5, 0.3, 0, 0.1]) / (0.9**0.5 + 0.4)),
    ],
)
def test_odds_go_from_frequency_to_equality(balance, expected):
    odds = class_odds([90_000, 9_000, 0, 1_000], balance)
    np.testing.assert_allclose(odds, expected, rtol=1e-12)
