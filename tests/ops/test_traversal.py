"""Paths visit each pixel once, in the order that their names promise."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvmh.errors import ConfigError, ShapeError
from cvmh.ops import inverse_table, kept_tables, order_table
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


@given(st.sampled_from(NAMES), sizes, sizes, st.booleans(), st.randoms(use_true_random=False))
def test_kept_tables_keep_the_order_and_count_what_they_leap(name, height, width, places, random):
    order, length = order_table(name, height, width), height * width
    keep = torch.tensor([[random.random() < share for _ in range(length)] for share in (0.3, 0.7)])
    in_pixel_order = keep.cumsum(dim=1) - 1
    place = torch.tensor([random.sample(range(length), length)] * 2) if places else in_pixel_order
    size = random.choice([None, length])
    tables = kept_tables(order, keep, size=size, place=place if places else None)

    num_steps = max(keep.sum(dim=1).tolist()) if size is None else size
    assert [table.dtype for table in tables] == [torch.int32, torch.int32, torch.int64]
    assert all(table.shape == (2, len(order), num_steps) for table in tables)
    for image in range(2):
        for path, *found in zip(order.tolist(), *(table[image] for table in tables), strict=True):
            steps = [step for step, pixel in enumerate(path) if keep[image, pixel]]
            places_on_path = [int(place[image, path[step]]) for step in steps]
            leaps = [later - step - 1 for step, later in pairwise([-1, *steps])]
            padding = num_steps - len(steps)
            expected = (places_on_path + [-1] * padding, leaps + [0] * padding)
            assert [row.tolist() for row in found] == [*expected, steps + [0] * padding]


def test_kept_tables_of_no_map_and_of_maps_that_keep_nothing():
    order = order_table("ss2d", 2, 3)
    assert kept_tables(order, torch.ones(0, 6, dtype=torch.bool)).order.shape == (0, 4, 0)
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    assert kept_tables(order, nothing).gap.shape == (2, 4, 0)
    padded = kept_tables(order, nothing, size=2)
    assert (padded.order == -1).all() and (padded.gap == 0).all() and (padded.step == 0).all()


def test_kept_tables_leave_out_what_is_beyond_their_size():
    keep = torch.ones(1, 6, dtype=torch.bool)
    assert kept_tables(order_table("ss2d", 2, 3), keep, size=4).order[0].tolist() == [
        *([0, 1, 2, 3], [0, 3, 1, 4], [5, 4, 3, 2], [5, 2, 4, 1])
    ]


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


@pytest.mark.parametrize(
    "keep, place, found",
    [
        (torch.ones(1, 5).bool(), None, r"keep \(1, 5\) of torch.bool"),
        (torch.ones(6).bool(), None, r"keep \(6,\) of torch.bool"),
        (torch.ones(1, 6), None, r"keep \(1, 6\) of torch.float32"),
        (torch.ones(1, 6).bool(), torch.zeros(6), r"place \(6,\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(keep, place, found):
    with pytest.raises(ShapeError, match=r"got order \(4, 6\), .*" + found):
        kept_tables(order_table("ss2d", 2, 3), keep, place=place)
