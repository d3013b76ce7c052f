"""Regions to polygons: rings are traced along the lattice, with their region on the left.

Every border is walked twice, once for the region on either side, through the same vertices. So the
polygons of a chunk are a coverage: neighbours share their edges exactly.

Legend: V number of vertices. Half-edge ``4 * vertex + direction`` leaves a vertex in a direction.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.geo.vectors.lattice import EAST, NORTH, SOUTH, WEST, Lattice
from cvmh.geo.vectors.regions import Regions

# For each direction the pixel on the left of the edge, relative to the vertex: (row, column).
LEFT_PIXEL = {EAST: (-1, 0), NORTH: (-1, -1), WEST: (0, -1), SOUTH: (0, 0)}


def trace(lattice: Lattice, regions: Regions, *, row: int, column: int) -> NDArray[Any]:
    """Return one valid polygon a region, in the order of the labels, as (x, y) = (column, row).

    Exterior rings are counter-clockwise as seen on the image.

    Args:
        lattice: the vertices of a chunk.
        regions: the regions of the same chunk.
        row: the chunk's first row in the raster.
        column: the chunk's first column.
    """
    exists, following = _half_edges(lattice, regions)
    walk, ring_starts = _walk(exists, following)
    vertices = walk >> 2
    x = lattice.columns[vertices].astype(np.float64)
    y = lattice.rows[vertices].astype(np.float64)
    labels = _labels_left_of(walk[ring_starts], lattice, regions)
    # The shoelace sum is negative for exteriors, since rows count downwards; the stretch from the
    # end of one ring to the start of the next belongs to neither.
    twice = x[:-1] * y[1:] - x[1:] * y[:-1]
    twice[ring_starts[1:] - 1] = 0
    is_hole = np.add.reduceat(twice, ring_starts) > 0
    order = np.lexsort((is_hole, labels))
    picked, offsets = pick(ring_starts, len(walk), order)
    coordinates = np.stack([x[picked] + column, y[picked] + row], axis=1)
    rings_of = np.searchsorted(labels[order], np.arange(len(regions) + 1))
    return np.asarray(
        shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (offsets, rings_of))
    )


def pick(
    starts: NDArray[Any], end: int, chosen: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the items of the chosen stretches of a list, and the offsets of their stretches."""
    lengths = np.diff(starts, append=end)[chosen]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shifts = np.repeat(np.asarray(starts)[chosen] - offsets[:-1], lengths)
    return np.arange(offsets[-1]) + shifts, offsets


def _half_edges(lattice: Lattice, regions: Regions) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which half-edges (4 V,) have a region on their left, and which follow them."""
    height, width = regions.runs.shape
    inside = {
        EAST: lattice.rows > 0,
        NORTH: lattice.columns > 0,
        WEST: lattice.rows < height,
        SOUTH: lattice.columns < width,
    }
    targets = _targets(lattice)
    joined = _joined_diagonals(lattice, regions)
    has_edge = lattice.has_edge
    exists = np.zeros((len(lattice), 4), dtype=bool)
    following = np.zeros((len(lattice), 4), dtype=np.int64)
    for direction in range(4):
        is_used = has_edge[direction] & inside[direction]
        target = targets[direction][is_used]
        left, right = (direction + 1) % 4, (direction + 3) % 4
        ahead = np.where(has_edge[direction, target], direction, right)
        turn = np.where(has_edge[left, target], left, ahead)
        turn = np.where(joined[direction % 2][target], right, turn)
        exists[is_used, direction] = True
        following[is_used, direction] = 4 * target + turn
    return exists.ravel(), following.ravel()


def _targets(lattice: Lattice) -> dict[int, NDArray[np.int64]]:
    """Return for each direction the next vertex there; meaningful where an edge leads there."""
    numbers = np.arange(len(lattice))
    by_column = np.lexsort((lattice.rows, lattice.columns))
    above, below = np.zeros_like(numbers), np.zeros_like(numbers)
    below[by_column[:-1]] = by_column[1:]
    above[by_column[1:]] = by_column[:-1]
    return {EAST: numbers + 1, NORTH: above, WEST: numbers - 1, SOUTH: below}


def _joined_diagonals(lattice: Lattice, regions: Regions) -> Sequence[NDArray[np.bool_]]:
    """Return where two pixels that touch by a corner belong to one region all the same.

    First for the pixels north-west and south-east of a vertex, then for the other two. There the
    outline goes on to the other pixel: a ring must not pass through one point twice.
    """
    cross = np.flatnonzero(lattice.has_edge.all(axis=0))
    rows, columns = lattice.rows[cross], lattice.columns[cross]
    north_west = regions.label_at(rows - 1, columns - 1)
    north_east = regions.label_at(rows - 1, columns)
    south_west = regions.label_at(rows, columns - 1)
    south_east = regions.label_at(rows, columns)
    joined = np.zeros((2, len(lattice)), dtype=bool)
    joined[0, cross] = north_west == south_east
    joined[1, cross] = south_west == north_east
    return joined[0], joined[1]


def _walk(exists: NDArray[Any], following: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the half-edges ring by ring, each ring closed, and where the rings begin."""
    # A plain loop over plain numbers: arrays would be slower one step at a time.
    steps = following.tolist()
    is_left = bytearray(exists.tobytes())
    walk: list[int] = []
    starts: list[int] = []
    for first in np.flatnonzero(exists).tolist():
        if not is_left[first]:
            continue
        starts.append(len(walk))
        current = first
        while is_left[current]:
            is_left[current] = 0
            walk.append(current)
            current = steps[current]
        walk.append(first)
    return np.array(walk), np.array(starts)


def _labels_left_of(
    half_edges: NDArray[Any], lattice: Lattice, regions: Regions
) -> NDArray[np.int32]:
    shifts = np.array([LEFT_PIXEL[direction] for direction in range(4)])[half_edges & 3]
    vertices = half_edges >> 2
    return regions.label_at(
        lattice.rows[vertices] + shifts[:, 0], lattice.columns[vertices] + shifts[:, 1]
    )
