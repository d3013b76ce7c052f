"""Which small regions join which neighbours: arithmetic on a table of regions and their borders.

Every small region points to the neighbour with which it shares the longest border; of equal ones to
the one whose first pixel, in raster order, comes first. All pointers are followed at once, so that
no order matters: what hangs together takes the class of its one large member, or of its largest
if all are small, and joins what it then touches of its own class. This is repeated until no region
is small but those that touch nothing else.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.vectors.regions import group


@dataclass(frozen=True, kw_only=True)
class Borders:
    """Pairs of neighbouring regions and the length of their border in pixels; unordered."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def renumbered(self, numbers: NDArray[Any], count: int) -> "Borders":
        """Return the borders between groups of regions, one entry a pair."""
        one, other = numbers[self.one].astype(np.int64), numbers[self.other].astype(np.int64)
        is_apart = one != other
        low, high = np.minimum(one, other)[is_apart], np.maximum(one, other)[is_apart]
        pairs, positions = np.unique(low * count + high, return_inverse=True)
        lengths = np.bincount(positions, weights=self.lengths[is_apart], minlength=len(pairs))
        return Borders(one=pairs // count, other=pairs % count, lengths=lengths.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class RegionTable:
    """Regions: class id, area in m2, and the position of their first pixel in raster order."""

    classes: NDArray[np.uint8]
    areas: NDArray[np.float64]
    first_pixels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.classes)

    def grouped(self, numbers: NDArray[np.int32], classes: NDArray[np.uint8]) -> "RegionTable":
        """Return the table of groups of regions, given their number and each region's new class."""
        count = int(numbers.max()) + 1
        first_pixels = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first_pixels, numbers, self.first_pixels)
        new_classes = np.zeros(count, dtype=np.uint8)
        new_classes[numbers] = classes
        areas = np.bincount(numbers, weights=self.areas, minlength=count).astype(np.float64)
        return RegionTable(classes=new_classes, areas=areas, first_pixels=first_pixels)


def merge_small(table: RegionTable, borders: Borders, min_area: float) -> NDArray[np.uint8]:
    """Return the new class of each region; 255 for small ones that have no neighbour.

    Args:
        table: all regions of a mask that are data.
        borders: at least the borders of those that are small.
        min_area: in m2; a region below it is small.
    """
    numbers: NDArray[Any] = np.arange(len(table))
    borders = borders.renumbered(numbers, len(table))
    while True:
        pointing, neighbours = _choose_neighbours(table, borders, table.areas < min_area)
        if not len(pointing):
            break
        classes = _classes_after(table, pointing, neighbours)
        meets_its_own = classes[borders.one] == classes[borders.other]
        groups = group(
            len(table),
            np.concatenate([pointing, borders.one[meets_its_own]]),
            np.concatenate([neighbours, borders.other[meets_its_own]]),
        )
        table = table.grouped(groups, classes)
        borders = borders.renumbered(groups, len(table))
        numbers = groups[numbers]
    classes = np.where(table.areas < min_area, NODATA_ID, table.classes).astype(np.uint8)
    return np.asarray(classes[numbers])


def _choose_neighbours(
    table: RegionTable, borders: Borders, is_small: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the small regions that have neighbours, and for each the one that it joins."""
    own = np.concatenate([borders.one, borders.other])
    theirs = np.concatenate([borders.other, borders.one])
    lengths = np.concatenate([borders.lengths, borders.lengths])
    is_asked = is_small[own]
    own, theirs, lengths = own[is_asked], theirs[is_asked], lengths[is_asked]
    order = np.lexsort((table.first_pixels[theirs], -lengths, own))
    own, first = np.unique(own[order], return_index=True)
    return own, theirs[order][first]


def _classes_after(
    table: RegionTable, pointing: NDArray[np.int64], neighbours: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the class of each region once all have followed their pointers."""
    groups = group(len(table), pointing, neighbours)
    is_pointing = np.zeros(len(table), dtype=bool)
    is_pointing[pointing] = True
    # The large member of a group is the only one that points nowhere, so it comes first.
    order = np.lexsort((table.first_pixels, -table.areas, is_pointing, groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(table.classes[order][first][groups])
