"""Paths visit each pixel once, in the order that their names promise."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvmh.errors import ConfigError, ShapeError
from cvmh.ops import inverse_table, order_table, pruned_table
from cvmh.ops.traversal import step_directions

NAMES = ["ss2d", "cs2d", "snake", "bidirectional", "single"]
NAMES += ["columns", "rows_reversed", "columns_reversed"]
sizes = st.integers(1, 9)


def cells(path, width):
    return [divmod(pixel, width) for pixel in path.tolist()]


@given(st.sampled_from(NAMES), st.sampled_from(["natural", "figure"]), sizes, sizes)
def test_each_path_visits_each_pixel_once(name, line_order, height, width):
    order = order_table(name, height, width, line_order=line_order)
    assert order.dtype == torch.int32
    assert order.shape[1] == height * width
    assert (order.sort(dim=1).values == torch.arange(height * width)).all()


@given(st.sampled_from(NAMES), sizes, sizes)
def test_inverse_takes_each_path_back(name, height, width):
    order = order_table(name, height, width).long()
    inverse = inverse_table(order, height * width)
    assert inverse.dtype == torch.int32
    assert (inverse.gather(1, order) == torch.arange(height * width)).all()


def test_inverse_marks_pixels_that_are_not_visited():
    order = torch.tensor([[[4, -1, 0], [1, 2, -1]]], dtype=torch.int32)
    assert inverse_table(order, 5).tolist() == [[[2, -1, -1, -1, 0], [-1, 0, 1, -1, -1]]]


def test_cross_scan_is_rows_columns_and_both_reversed():
    assert order_table("ss2d", 2, 3).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


@given(sizes, sizes)
def test_lines_of_cs2d_follow_each_other_in_natural_order(height, width):
    grid = torch.arange(height * width).view(height, width)
    mirrored = grid.flip(1)
    expected = [
        grid.flatten().tolist(),
        grid.T.flatten().tolist(),
        # Anti-diagonals are the diagonals of the mirrored map.
        torch.cat([mirrored.diagonal(i) for i in range(width - 1, -height, -1)]).tolist(),
        torch.cat([grid.diagonal(i) for i in range(1 - height, width)]).tolist(),
    ]
    assert order_table("cs2d", height, width).tolist() == expected


@given(sizes, sizes)
def test_figure_order_reverses_lines_but_not_their_direction(height, width):
    grid = torch.arange(height * width).view(height, width)
    mirrored = grid.flip(1)
    expected = [
        grid.flatten().tolist(),
        grid.T.flip(0).flatten().tolist(),
        torch.cat([mirrored.diagonal(i) for i in range(1 - height, width)]).tolist(),
        torch.cat([grid.diagonal(i) for i in range(width - 1, -height, -1)]).tolist(),
    ]
    assert order_table("cs2d", height, width, line_order="figure").tolist() == expected


@given(sizes, sizes)
def test_snake_steps_only_to_neighbours(height, width):
    order = order_table("snake", height, width)
    for path in order:
        visited = cells(path, width)
        for (row, column), (next_row, next_column) in pairwise(visited):
            assert abs(row - next_row) + abs(column - next_column) == 1
    assert order[0, 0] == order[2, 0] == 0
    assert torch.equal(order[1], order[0].flip(0)) and torch.equal(order[3], order[2].flip(0))


def test_snake_runs_along_rows_then_columns():
    order = order_table("snake", 2, 3)
    assert order[0].tolist() == [0, 1, 2, 5, 4, 3]
    assert order[2].tolist() == [0, 3, 4, 1, 2, 5]


@given(st.sampled_from(NAMES), sizes, sizes, st.randoms(use_true_random=False))
def test_pruned_paths_keep_the_order_and_count_what_they_leap(name, height, width, random):
    order = order_table(name, height, width)
    keep = torch.tensor([random.random() < 0.4 for _ in range(height * width)])
    pruned, gap = pruned_table(order, keep)
    assert pruned.dtype == gap.dtype == torch.int32
    assert pruned.shape == gap.shape == (order.shape[0], int(keep.sum()))
    for path, short, leapt in zip(order.tolist(), pruned.tolist(), gap.tolist(), strict=True):
        kept = [pixel for pixel in path if keep[pixel]]
        assert short == kept
        passed = -1
        for pixel, count in zip(kept, leapt, strict=True):
            assert path.index(pixel) - passed - 1 == count
            passed = path.index(pixel)


def test_single_paths_are_those_of_the_cross_scan():
    names = ("single", "columns", "rows_reversed", "columns_reversed")
    paths = torch.cat([order_table(name, 3, 5) for name in names])
    assert paths.equal(order_table("ss2d", 3, 5))


@given(st.sampled_from(NAMES), sizes, sizes)
def test_a_direction_leads_from_each_step_to_the_next(name, height, width):
    order = order_table(name, height, width)
    moves = {1: (0, 1), 2: (0, -1), 3: (-1, 0), 4: (1, 0)}
    for path, directions in zip(order, step_directions(order, width).tolist(), strict=True):
        assert directions[0] == 0
        for (before, after), direction in zip(
            pairwise(cells(path, width)), directions[1:], strict=True
        ):
            step = (after[0] - before[0], after[1] - before[1])
            if direction:
                assert step == moves[direction]
            else:
                assert abs(step[0]) + abs(step[1]) > 1


def test_a_table_has_values_whatever_the_default_device():
    with torch.device("meta"):
        assert order_table("columns", 2, 7).tolist()[0][:3] == [0, 7, 1]


def test_tables_are_made_once():
    assert order_table("ss2d", 4, 5) is order_table("ss2d", 4, 5, device=torch.device("cpu"))


def test_unknown_paths_name_those_that_exist():
    with pytest.raises(ConfigError, match=r"must be one of ss2d, cs2d, snake, .* got 'spiral'"):
        order_table("spiral", 4, 4)


def test_unknown_line_order_and_empty_maps_are_refused():
    with pytest.raises(ConfigError, match="line order must be natural or figure, got 'zigzag'"):
        order_table("cs2d", 4, 4, line_order="zigzag")
    with pytest.raises(ConfigError, match="height and width must be at least 1, got 0 x 4"):
        order_table("cs2d", 0, 4)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"got order \(4, 6\) and keep \(5,\) of torch.bool"):
        pruned_table(order_table("ss2d", 2, 3), torch.ones(5, dtype=torch.bool))
