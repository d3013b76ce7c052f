"""The windows of an evaluation that were predicted worst and best.

Legend: H rows, W columns.
"""

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets import LabelledImage
from cvmh.geo.tiling import Window
from cvmh.report.observing import Block

# Windows are about so many pixels high and wide.
SIDE = 256
# The last rows of a scene may be too few to show anything.
LEAST_ROWS = 64
LEAST_LABELLED = 0.5
# A window with two classes, each on so many of the labelled pixels, is not a trivial one.
LEAST_SHARE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredWindow:
    """A part of a scene, its label and its prediction; 255 where the label does not count."""

    image: LabelledImage
    window: Window
    truth_HW: NDArray[np.uint8]
    guess_HW: NDArray[np.uint8]

    @property
    def wrong(self) -> float:
        """The share of the labelled pixels that are wrong."""
        counted = self.truth_HW != NODATA_ID
        return float((self.truth_HW != self.guess_HW)[counted].mean())

    @property
    def is_mixed(self) -> bool:
        """True if it has two classes or more that are not just a few pixels."""
        counts = np.bincount(self.truth_HW[self.truth_HW != NODATA_ID])
        return int((counts >= LEAST_SHARE * counts.sum()).sum()) > 1

    def worst_mistake(self) -> tuple[int, int, float] | None:
        """Return the label and the prediction that are mistaken most, and the share; or None."""
        is_wrong = (self.truth_HW != NODATA_ID) & (self.truth_HW != self.guess_HW)
        pairs = self.truth_HW[is_wrong].astype(np.int64) << 8 | self.guess_HW[is_wrong]
        if not pairs.size:
            return None
        found, counts = np.unique(pairs, return_counts=True)
        pair = int(found[counts.argmax()])
        return pair >> 8, pair & 255, counts.max() / (self.truth_HW != NODATA_ID).sum()


# Rank, order of arrival with the sign turned, window: what is smallest goes first.
_Entry = tuple[tuple[float, ...], int, ScoredWindow]


class ExtremeWindows:
    """Keeps the windows with the largest and the smallest share of wrong pixels, and no other.

    Scenes are divided without gap or overlap; windows of which less than half is labelled are
    passed over. Among the best, windows of one class alone come last: they are easily right.

    Args:
        num_worst: how many of the worst to keep.
        num_best: how many of the best to keep.
    """

    def __init__(self, *, num_worst: int = 6, num_best: int = 3) -> None:
        self._num_worst, self._num_best = num_worst, num_best
        self._worst: list[_Entry] = []
        self._best: list[_Entry] = []
        self._seen = 0

    def add(self, block: Block) -> None:
        """Look at the windows of a block of rows."""
        if block.window.row and block.window.height < LEAST_ROWS:
            return
        for rows in _divided(block.window.height):
            for columns in _divided(block.window.width):
                self._consider(block, rows, columns)

    @property
    def worst(self) -> tuple[ScoredWindow, ...]:
        """The windows with the largest share of wrong pixels, the worst first."""
        return tuple(entry[2] for entry in sorted(self._worst, reverse=True))

    @property
    def best(self) -> tuple[ScoredWindow, ...]:
        """The windows with the smallest share, the best first; none that is among the worst."""
        worst = {id(entry[2]) for entry in self._worst}
        ordered = [entry[2] for entry in sorted(self._best, reverse=True)]
        return tuple(found for found in ordered if id(found) not in worst)[: self._num_best]

    def _consider(self, block: Block, rows: slice, columns: slice) -> None:
        truth, guess = block.truth_HW[rows, columns], block.guess_HW[rows, columns]
        if (truth != NODATA_ID).mean() < LEAST_LABELLED:
            return
        self._seen += 1
        found = ScoredWindow(
            image=block.image,
            window=Window(
                block.window.row + rows.start, block.window.column + columns.start, *truth.shape
            ),
            truth_HW=truth.copy(),
            guess_HW=guess.copy(),
        )
        self._keep(self._worst, (found.wrong,), found, most=self._num_worst)
        # As many more as may turn out to be among the worst too.
        most = self._num_best + self._num_worst
        self._keep(self._best, (found.is_mixed, -found.wrong), found, most=most)

    def _keep(
        self, kept: list[_Entry], rank: tuple[float, ...], found: ScoredWindow, *, most: int
    ) -> None:
        entry = (rank, -self._seen, found)
        if len(kept) < most:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)


def _divided(length: int) -> list[slice]:
    """Return slices of nearly one size, about ``SIDE`` long."""
    parts = max(1, round(length / SIDE))
    edges = [length * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]
