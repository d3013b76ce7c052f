import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cvmh.geo.cells import CellGrid, mark_rectangles

HEIGHT, WIDTH = 23, 17


def spans(size):
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(
        lambda pair: (pair[0], min(pair[0] + pair[1], size))
    )


boxes = st.tuples(spans(HEIGHT), spans(WIDTH)).map(lambda pair: (*pair[0], *pair[1]))


@given(st.lists(boxes, max_size=5), st.integers(1, 9), st.integers(1, 9), st.lists(boxes))
def test_a_window_is_met_if_it_shares_a_cell_with_a_rectangle(rectangles, high, wide, windows):
    array = np.array(rectangles, dtype=np.int64).reshape(-1, 4)
    grid = mark_rectangles(array, HEIGHT, WIDTH, high, wide)

    def cells(box):
        top, bottom, left, right = box
        return {(y // high, x // wide) for y in range(top, bottom) for x in range(left, right)}

    marked = set().union(*[cells(box) for box in rectangles])
    assert {tuple(cell) for cell in np.argwhere(grid.marks).tolist()} == marked
    expected = [bool(cells(window) & marked) for window in windows]
    columns = np.array(windows, dtype=np.int64).reshape(-1, 4).T
    assert grid.meets(*columns).tolist() == expected


def test_rows_and_columns_of_windows_are_broadcast():
    grid = CellGrid(np.array([[True, False], [False, False]]), 10, 10)
    rows, columns = np.array([[0], [5], [10]]), np.array([[0, 9, 12]])
    found = grid.meets(rows, rows + 4, columns, columns + 4)
    assert found.tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert grid.share == 0.25


def test_what_lies_outside_meets_nothing():
    grid = CellGrid(np.ones((2, 2), dtype=bool), 10, 10)
    assert not grid.meets([-9, 20, 0], [0, 30, 5], [0, 0, 40], [5, 5, 50]).any()
