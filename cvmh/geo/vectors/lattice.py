"""The corners of pixels at which the borders between classes bend or meet.

Legend: H height, W width, V number of vertices. A chunk's lattice has (H + 1, W + 1) points, and
point (row, column) is the upper left corner of pixel (row, column).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Directions in the order of left turns, as seen on the image.
EAST, NORTH, WEST, SOUTH = range(4)


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """The vertices of a chunk, in raster order.

    ``rows`` and ``columns`` (V,) count from the chunk's corner. ``has_edge`` (4, V) says in which
    directions a border or the rim of the chunk leaves a vertex. ``is_loose`` (V,) is true at those
    vertices that only the rim of the chunk made: no border bends or ends there.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    has_edge: NDArray[np.bool_]
    is_loose: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of vertices."""
        return len(self.rows)


def find_vertices(padded: NDArray[np.uint8], *, spacing: int) -> Lattice:
    """Find the vertices of a chunk.

    A vertex is made wherever a border bends or borders meet, seen with the pixels around the
    chunk, so that both sides of its rim get the same vertices; wherever a border reaches the rim;
    and along the rim at multiples of ``spacing``, where the rims of smaller chunks may end.

    Args:
        padded: (H + 2, W + 2) class ids of the chunk and of one pixel around it.
        spacing: distance in pixels of the vertices that every rim has.
    """
    # Between columns: borders that run north and south; between rows: east and west.
    upright = padded[:, 1:] != padded[:, :-1]
    level = padded[1:] != padded[:-1]
    is_true = (upright[:-1] ^ upright[1:]) | (level[:, :-1] ^ level[:, 1:])
    is_true |= upright[:-1] & level[:, :-1]
    is_vertex = is_true.copy()
    _mark_rim(is_vertex, upright, level, spacing)
    _close_rim(upright, level)
    rows, columns = np.nonzero(is_vertex)
    has_edge = np.stack(
        [
            level[rows, columns + 1],
            upright[rows, columns],
            level[rows, columns],
            upright[rows + 1, columns],
        ]
    )
    return Lattice(rows=rows, columns=columns, has_edge=has_edge, is_loose=~is_true[rows, columns])


def _mark_rim(
    is_vertex: NDArray[np.bool_],
    upright: NDArray[np.bool_],
    level: NDArray[np.bool_],
    spacing: int,
) -> None:
    is_vertex[0] |= upright[1]
    is_vertex[-1] |= upright[-2]
    is_vertex[:, 0] |= level[:, 1]
    is_vertex[:, -1] |= level[:, -2]
    for rim in (is_vertex[0], is_vertex[-1], is_vertex[:, 0], is_vertex[:, -1]):
        rim[::spacing] = True
        rim[-1] = True


def _close_rim(upright: NDArray[np.bool_], level: NDArray[np.bool_]) -> None:
    """Draw the rim of the chunk as a border, and no border outside it."""
    upright[[0, -1]] = False
    level[:, [0, -1]] = False
    upright[1:-1, [0, -1]] = True
    level[[0, -1], 1:-1] = True
