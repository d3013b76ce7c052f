"""The 4-connected regions of equal class in an array, found by its runs.

A run is a stretch of equal pixels of one row. Masks have far fewer runs than pixels, so everything
that is counted or joined here costs as much as there are runs.

Legend: H height, W width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of an array (H, W); labels are 0, 1, 2 ... and every pixel has one.

    ``classes`` is the class id of each label, ``labels`` the label of each run, ``starts`` the
    flat index of the first pixel of each run, ``runs`` (H, W) the run of each pixel.
    """

    classes: NDArray[np.uint8]
    labels: NDArray[np.int32]
    starts: NDArray[np.int64]
    runs: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.classes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of pixels of each run."""
        return np.diff(self.starts, append=self.runs.size)

    @property
    def first_runs(self) -> NDArray[np.int64]:
        """The first run, in raster order, of each region."""
        first = np.empty(len(self), dtype=np.int64)
        # Of several values for one place the last stays, so the runs are given backwards.
        first[self.labels[::-1]] = np.arange(len(self.labels) - 1, -1, -1)
        return first

    def label_at(self, rows: Any, columns: Any) -> NDArray[np.int32]:
        """Return the labels of some pixels."""
        return self.labels[self.runs[rows, columns]]

    def total(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum over each region of a value that is given for each run."""
        return np.bincount(self.labels, weights=values, minlength=len(self)).astype(np.float64)

    def sum_pixels(self, pixels_HW: NDArray[Any]) -> NDArray[np.int64]:
        """Return the sum of the pixels of each run."""
        return np.add.reduceat(pixels_HW.ravel(), self.starts, dtype=np.int64)


def find_regions(classes_HW: NDArray[np.uint8]) -> Regions:
    """Label the 4-connected regions of an array of class ids."""
    width = classes_HW.shape[1]
    is_start = np.ones(classes_HW.shape, dtype=bool)
    np.not_equal(classes_HW[:, 1:], classes_HW[:, :-1], out=is_start[:, 1:])
    flat = is_start.ravel()
    starts = np.flatnonzero(flat)
    runs = np.cumsum(flat, dtype=np.int32) - np.int32(1)
    # Two runs of neighbouring rows that meet do so first where one of them starts.
    upper = np.flatnonzero((is_start[:-1] | is_start[1:]).ravel())
    above, below = runs[upper], runs[upper + width]
    class_of_run = classes_HW.ravel()[starts]
    is_joined = class_of_run[above] == class_of_run[below]
    labels = group(len(starts), above[is_joined], below[is_joined])
    classes = np.empty(labels.max() + 1, dtype=np.uint8)
    classes[labels] = class_of_run
    return Regions(
        classes=classes, labels=labels, starts=starts, runs=runs.reshape(classes_HW.shape)
    )


def group(count: int, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.int32]:
    """Return a label for each of ``count`` things of which pairs belong together."""
    pairs = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return np.asarray(connected_components(pairs.tocsr(), directed=False)[1], dtype=np.int32)
