"""From the pieces of a region to its one polygon."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.geo.vectors.seams import Frontier, OpenRegion


def assemble(region: OpenRegion, frontier: Frontier) -> Any:
    """Return the one polygon of a region, without the vertices that only chunks made."""
    shell = shapely.from_wkb(region.shells[0])
    if len(region.shells) > 1:
        shell = shapely.coverage_union_all(shapely.from_wkb(np.array(region.shells, dtype=object)))
        (shell,) = shapely.get_parts(shell)
    _, points, (ring_offsets, _) = shapely.to_ragged_array(np.array([shell]))
    points, ring_offsets = _drop_loose(points, ring_offsets, np.concatenate(region.loose), frontier)
    lengths = [np.diff(ring_offsets), *region.hole_lengths]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    coordinates = np.concatenate([points, *region.holes])
    rings = np.array([0, len(offsets) - 1])
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (offsets, rings))[0]


def _drop_loose(
    points: NDArray[np.float64],
    offsets: NDArray[np.int64],
    loose: NDArray[np.int64],
    frontier: Frontier,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Drop the loose vertices of rings that lie on the line between their neighbours."""
    first, last = offsets[:-1], offsets[1:] - 1
    before, after = np.arange(-1, len(points) - 1), np.arange(1, len(points) + 1)
    # The first point of a ring is there again as its last.
    before[first], after[last] = last - 1, first + 1
    along, ahead = points - points[before], points[after] - points
    is_straight = along[:, 0] * ahead[:, 1] == along[:, 1] * ahead[:, 0]
    is_kept = ~(is_straight & np.isin(frontier.key(points), loose))
    is_kept[last] = False
    starts = np.concatenate([[0], np.cumsum(np.add.reduceat(is_kept.astype(np.int64), first))])
    open_rings = np.flatnonzero(is_kept)
    closed = np.insert(open_rings, starts[1:], open_rings[starts[:-1]])
    return points[closed], starts + np.arange(len(starts))
