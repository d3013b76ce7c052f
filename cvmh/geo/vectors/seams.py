"""Regions that go on from chunk to chunk: put together, and handed out when they are complete."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.geo.tiling import Window
from cvmh.geo.vectors.measures import Measures

# The region of a pixel that belongs to none.
NOBODY = -1


@dataclass(kw_only=True)
class OpenRegion:
    """A region of which more may come.

    ``shells`` are the outlines of its pieces, filled; ``holes`` the holes inside pieces, as rings
    one after another in coordinates (N, 2), ``hole_lengths`` their number of points; ``loose`` the
    keys of the vertices of its outline that only the rims of chunks made.
    """

    class_id: int
    area: float = 0.0
    confidence: int = 0
    num_confident: int = 0
    shells: list[bytes] = field(default_factory=list)
    holes: list[NDArray[np.float64]] = field(default_factory=list)
    hole_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    loose: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def measures(self) -> Measures:
        """What is known of the region, as a table of one entry."""
        return Measures(
            classes=np.array([self.class_id], dtype=np.uint8),
            areas=np.array([self.area]),
            confidences=np.array([self.confidence]),
            num_confident=np.array([self.num_confident]),
        )

    def absorb(self, other: "OpenRegion") -> None:
        """Take over all pieces of another region."""
        self.area += other.area
        self.confidence += other.confidence
        self.num_confident += other.num_confident
        self.shells += other.shells
        self.holes += other.holes
        self.hole_lengths += other.hole_lengths
        self.loose += other.loose


class Frontier:
    """The regions that reach the edge of what has been seen, chunk after chunk in raster order.

    Chunks may be cut into smaller ones; then each quarter follows its neighbours above and to the
    left. Memory is that of the open regions and of one number a column.

    Args:
        width: columns of the raster.
        side: rows of a chunk.
    """

    def __init__(self, width: int, side: int) -> None:
        self._side = side
        self._stride = width + 1
        # The region of the last pixel seen in each column, and in each row of the present chunks.
        self._above = np.full(width, NOBODY, dtype=np.int64)
        self._beside = np.full(side, NOBODY, dtype=np.int64)
        self._parents: dict[int, int] = {}
        self._regions: dict[int, OpenRegion] = {}
        self._next = 0

    def key(self, coordinates: NDArray[Any]) -> NDArray[np.int64]:
        """Return one number for each point (N, 2) of the lattice."""
        columns, rows = coordinates.astype(np.int64).T
        return np.asarray(rows * self._stride + columns)

    def skip(self, window: Window) -> None:
        """Note that there is no region in a chunk."""
        self._above[window.columns] = NOBODY
        self._beside[self._local(window)] = NOBODY

    def add(
        self,
        window: Window,
        padded: NDArray[np.uint8],
        rims: "Rims",
        pieces: NDArray[Any],
        measures: Measures,
        loose: NDArray[np.int64],
    ) -> None:
        """Add the pieces of a chunk that touch its rim.

        Args:
            window: the chunk.
            padded: (H + 2, W + 2) its class ids, with one pixel around it.
            rims: which piece each pixel along its rim belongs to, NOBODY where there is no data.
            pieces: their polygons in lattice coordinates.
            measures: what is known of the pieces.
            loose: keys of the vertices that only the rim of the chunk made.
        """
        numbers = np.arange(self._next, self._next + len(pieces) + 1)
        numbers[-1] = NOBODY
        self._next += len(pieces)
        for number, region in zip(
            numbers.tolist(), self._open(pieces, measures, loose), strict=False
        ):
            self._parents[number] = number
            self._regions[number] = region
        rows = self._local(window)
        self._join(self._above[window.columns], numbers[rims.top], padded[:2, 1:-1])
        self._join(self._beside[rows], numbers[rims.left], padded[1:-1, :2].T)
        self._above[window.columns] = numbers[rims.bottom]
        self._beside[rows] = numbers[rims.right]

    def start_row(self) -> None:
        """Forget the chunks on the left: the next chunk is the first of its row."""
        self._beside[:] = NOBODY

    def close(self, *, is_last: bool) -> list[OpenRegion]:
        """Return the regions that nothing can be added to any more, after a row of chunks.

        Args:
            is_last: whether that was the last row.
        """
        if is_last:
            self._above[:] = NOBODY
        ids, positions = np.unique(self._above, return_inverse=True)
        roots = np.array([self._root(number) if number >= 0 else NOBODY for number in ids.tolist()])
        self._above = roots[positions].astype(np.int64)
        alive = set(roots.tolist())
        done = [region for root, region in self._regions.items() if root not in alive]
        self._regions = {root: r for root, r in self._regions.items() if root in alive}
        self._parents = {root: root for root in self._regions}
        return done

    def _local(self, window: Window) -> slice:
        first = window.row % self._side
        return slice(first, first + window.height)

    def _open(
        self, pieces: NDArray[Any], measures: Measures, loose: NDArray[np.int64]
    ) -> list[OpenRegion]:
        if not len(pieces):
            return []
        shells = shapely.polygons(shapely.get_exterior_ring(pieces))
        points, owners = shapely.get_coordinates(shells, return_index=True)
        keys = self.key(points)
        is_loose = np.isin(keys, loose)
        loose_of = _split(keys[is_loose], owners[is_loose], len(pieces))
        wkbs = shapely.to_wkb(shells)
        _, points, (ring_ends, rings_of) = shapely.to_ragged_array(pieces)
        regions = []
        for number in range(len(pieces)):
            first, end = rings_of[number] + 1, rings_of[number + 1]
            region = OpenRegion(
                class_id=int(measures.classes[number]),
                area=float(measures.areas[number]),
                confidence=int(measures.confidences[number]),
                num_confident=int(measures.num_confident[number]),
                shells=[wkbs[number]],
                loose=[loose_of[number]],
            )
            if end > first:
                region.holes.append(points[ring_ends[first] : ring_ends[end]].copy())
                region.hole_lengths.append(np.diff(ring_ends[first : end + 1]))
            regions.append(region)
        return regions

    def _join(
        self, theirs: NDArray[np.int64], ours: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> None:
        """Join regions on either side of a rim where their class is the same."""
        is_same = (classes[0] == classes[1]) & (ours != NOBODY)
        pairs = np.stack([theirs[is_same], ours[is_same]], axis=1)
        if not len(pairs):
            return
        changes = np.any(pairs[1:] != pairs[:-1], axis=1)
        for one, other in pairs[np.concatenate([[True], changes])].tolist():
            self._unite(one, other)

    def _unite(self, one: int, other: int) -> None:
        keep, drop = self._root(one), self._root(other)
        if keep == drop:
            return
        if len(self._regions[keep].shells) < len(self._regions[drop].shells):
            keep, drop = drop, keep
        self._parents[drop] = keep
        self._regions[keep].absorb(self._regions.pop(drop))

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number


@dataclass(frozen=True, kw_only=True)
class Rims:
    """Which piece each pixel along the four sides of a chunk belongs to."""

    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def _split(
    values: NDArray[np.int64], owners: NDArray[np.int64], count: int
) -> list[NDArray[np.int64]]:
    ends = np.searchsorted(owners, np.arange(1, count))
    return [part.copy() for part in np.split(values, ends)]
