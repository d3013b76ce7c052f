"""An area of interest on the grid of a raster: which pixels have their centre inside it.

The raster is cut into cells. Most lie wholly inside or outside the area and cost nothing; the
polygons are drawn only into those that its border crosses. A pixel is always drawn with the whole
of its cell, so the answer does not depend on the windows that are asked for.

Legend: H height, W width, in pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.features import rasterize

from cvmh.geo.cells import CellGrid
from cvmh.geo.tiling import Window

MIN_CELL, MAX_CELLS = 256, 1_000_000
# Drawing costs rows x vertices, so that long outlines are cut into pieces first.
MAX_VERTICES = 256
OUTSIDE, CROSSED, INSIDE = 0, 1, 2


class Area:
    """Polygons laid over a raster.

    Args:
        polygons: valid shapely geometries, of which only polygons count; their coordinates are
            (column, row) in pixels, (0, 0) being the outer corner of the first pixel.
        height: rows of the raster.
        width: columns of the raster.
    """

    def __init__(self, polygons: Sequence[Any], height: int, width: int) -> None:
        self._size = height, width
        self._cell = _cell_side(height, width)
        self._pieces = _cut(polygons, shapely.box(0, 0, width, height), self._cell)
        self._index = shapely.STRtree(self._pieces)
        shape = -(-height // self._cell), -(-width // self._cell)
        self._kinds = self._judge_cells(shape)
        self._grid = CellGrid(self._kinds != OUTSIDE, self._cell, self._cell)

    @property
    def is_empty(self) -> bool:
        """True if no part of the area lies on the raster."""
        return not len(self._pieces)

    @property
    def share(self) -> float:
        """The share of the raster that lies in the area, 0 to 1."""
        return float(shapely.area(self._pieces).sum()) / (self._size[0] * self._size[1])

    def meets(
        self,
        first_rows: ArrayLike,
        end_rows: ArrayLike,
        first_columns: ArrayLike,
        end_columns: ArrayLike,
    ) -> NDArray[np.bool_]:
        """Return for each window whether any pixel of it may lie in the area.

        False is certain; true may err by less than a cell. The arguments are broadcast: see
        :meth:`cvmh.geo.cells.CellGrid.meets`.
        """
        return self._grid.meets(first_rows, end_rows, first_columns, end_columns)

    def look(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the whole raster shrunk to (height, width), true where it lies in the area."""
        scale = Affine.scale(self._size[1] / width, self._size[0] / height)
        return _burn(self._pieces, (height, width), scale).astype(bool)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return (H, W), true where the centre of the pixel lies in the area."""
        is_inside = np.zeros((window.height, window.width), dtype=bool)
        for row, column in self._cells_of(window):
            kind = self._kinds[row, column]
            if kind == OUTSIDE:
                continue
            top, left = row * self._cell, column * self._cell
            rows = _overlap(top, self._cell, window.row, window.height)
            columns = _overlap(left, self._cell, window.column, window.width)
            target = is_inside[_shifted(rows, window.row), _shifted(columns, window.column)]
            if kind == INSIDE:
                target[:] = True
            else:
                target[:] = self._draw(top, left)[_shifted(rows, top), _shifted(columns, left)]
        return is_inside

    def _cells_of(self, window: Window) -> Iterator[tuple[int, int]]:
        for row in range(window.row // self._cell, -(-window.rows.stop // self._cell)):
            for column in range(window.column // self._cell, -(-window.columns.stop // self._cell)):
                yield row, column

    def _draw(self, top: int, left: int) -> NDArray[np.bool_]:
        """Return (cell, cell), true where the centre of a pixel of the cell lies in the area."""
        cell = shapely.box(left, top, left + self._cell, top + self._cell)
        found = self._pieces[self._index.query(cell)]
        shape = self._cell, self._cell
        return _burn(found, shape, Affine.translation(left, top)).astype(bool)

    def _judge_cells(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return per cell whether it surely lies outside, surely inside, or is to be drawn."""
        scale = Affine.scale(self._cell)
        centres = _burn(self._pieces, shape, scale)
        border = _burn(shapely.boundary(self._pieces), shape, scale, all_touched=True)
        kinds = np.where(centres.astype(bool), INSIDE, OUTSIDE).astype(np.uint8)
        # Drawing may miss a border along the edge of cells, hence all neighbours are looked at.
        rows, columns = np.nonzero(_grown(border.astype(bool)))
        left, top = columns * self._cell, rows * self._cell
        cells = shapely.box(left, top, left + self._cell, top + self._cell)
        judged = np.full(len(cells), OUTSIDE, dtype=np.uint8)
        judged[self._index.query(cells, predicate="intersects")[0]] = CROSSED
        judged[self._index.query(cells, predicate="covered_by")[0]] = INSIDE
        kinds[rows, columns] = judged
        return kinds


def _burn(
    shapes: NDArray[Any], shape: tuple[int, int], transform: Affine, *, all_touched: bool = False
) -> NDArray[np.uint8]:
    if not len(shapes):
        return np.zeros(shape, dtype=np.uint8)
    burnt = rasterize(
        list(shapes), out_shape=shape, transform=transform, dtype="uint8", all_touched=all_touched
    )
    return np.asarray(burnt)


def _grown(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the marks and their eight neighbours."""
    padded = np.pad(marks, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:])


def _cut(polygons: Sequence[Any], frame: Any, cell: int) -> NDArray[Any]:
    """Return the pieces of polygons inside a frame, none of them of many vertices.

    Cuts run along whole cells, between the centres of pixels, so that no pixel is lost.
    """
    pieces = []
    todo = [(np.asarray(polygons, dtype=object), frame)]
    while todo:
        whole, box = todo.pop()
        # Where a polygon only touches the box, they have a line or a point in common.
        parts = shapely.get_parts(shapely.get_parts(shapely.intersection(whole, box)))
        parts = parts[(shapely.get_dimensions(parts) == 2) & ~shapely.is_empty(parts)]
        is_long = shapely.get_num_coordinates(parts) > MAX_VERTICES
        pieces.append(parts[~is_long])
        for part in parts[is_long]:
            halves = _halves(part.bounds, cell)
            todo += [(part, half) for half in halves]
            if not halves:
                pieces.append(np.array([part], dtype=object))
    return np.concatenate(pieces)


def _halves(bounds: tuple[float, float, float, float], cell: int) -> list[Any]:
    """Return two boxes that part a box along its longer side, none if it is a cell already."""
    left, top, right, bottom = (
        int(bounds[0] // cell),
        int(bounds[1] // cell),
        int(-(-bounds[2] // cell)),
        int(-(-bounds[3] // cell)),
    )
    if max(right - left, bottom - top) <= 1:
        return []
    if right - left >= bottom - top:
        middle = (left + right) // 2
        boxes = [(left, top, middle, bottom), (middle, top, right, bottom)]
    else:
        middle = (top + bottom) // 2
        boxes = [(left, top, right, middle), (left, middle, right, bottom)]
    return [shapely.box(*(side * cell for side in box)) for box in boxes]


def _cell_side(height: int, width: int) -> int:
    side = MIN_CELL
    while -(-height // side) * -(-width // side) > MAX_CELLS:
        side *= 2
    return side


def _overlap(start: int, size: int, other_start: int, other_size: int) -> slice:
    return slice(max(start, other_start), min(start + size, other_start + other_size))


def _shifted(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)
