"""Cells of a raster, and whether any cell of a kind meets each of very many windows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


class CellGrid:
    """A raster cut into equal cells, some of them marked; the last ones may be cut off.

    Args:
        marks: (rows of cells, columns of cells), true where a cell is marked.
        cell_height: rows of pixels in a cell.
        cell_width: columns of pixels in a cell.
    """

    def __init__(self, marks: NDArray[np.bool_], cell_height: int, cell_width: int) -> None:
        self.marks = marks
        self.cell_height = cell_height
        self.cell_width = cell_width
        # How many marks lie above and left of each corner; four of them answer any window.
        self._table = np.zeros((marks.shape[0] + 1, marks.shape[1] + 1), dtype=np.int32)
        np.cumsum(marks, axis=0, out=self._table[1:, 1:])
        np.cumsum(self._table[1:, 1:], axis=1, out=self._table[1:, 1:])

    @property
    def share(self) -> float:
        """The share of the cells that is marked, 0 to 1."""
        return float(self._table[-1, -1]) / self.marks.size

    def meets(
        self,
        first_rows: ArrayLike,
        end_rows: ArrayLike,
        first_columns: ArrayLike,
        end_columns: ArrayLike,
    ) -> NDArray[np.bool_]:
        """Return for each window whether any marked cell meets it.

        The four are in pixels, ends exclusive, and are broadcast against each other: rows as
        (n, 1) and columns as (1, m) ask about n x m windows. What lies outside the raster is
        met by nothing.
        """
        top = np.asarray(first_rows) // self.cell_height
        bottom = -(-np.asarray(end_rows) // self.cell_height)
        left = np.asarray(first_columns) // self.cell_width
        right = -(-np.asarray(end_columns) // self.cell_width)
        top, bottom = (np.clip(rows, 0, self.marks.shape[0]) for rows in (top, bottom))
        left, right = (np.clip(columns, 0, self.marks.shape[1]) for columns in (left, right))
        table = self._table
        outer = table[bottom, right] - table[top, right]
        inner = table[bottom, left] - table[top, left]
        return np.asarray(outer > inner)


def mark_rectangles(
    rectangles: NDArray[np.int64], height: int, width: int, cell_height: int, cell_width: int
) -> CellGrid:
    """Return the grid in which each cell that meets one of the rectangles is marked.

    Args:
        rectangles: (number, 4) first row, end row, first column, end column in pixels, inside
            the raster, none of them empty.
        height: rows of the raster.
        width: columns of the raster.
        cell_height: rows of pixels in a cell.
        cell_width: columns of pixels in a cell.
    """
    shape = -(-height // cell_height), -(-width // cell_width)
    top, left = rectangles[:, 0] // cell_height, rectangles[:, 2] // cell_width
    bottom, right = -(-rectangles[:, 1] // cell_height), -(-rectangles[:, 3] // cell_width)
    # +1 where a rectangle begins and -1 where it ends; summed up, how many lie on each cell.
    steps = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int32)
    for rows, columns, step in [(top, left, 1), (bottom, right, 1), (top, right, -1)]:
        np.add.at(steps, (rows, columns), step)
    np.add.at(steps, (bottom, left), -1)
    depth = steps.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    return CellGrid(depth[:-1, :-1] > 0, cell_height, cell_width)
