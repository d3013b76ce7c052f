"""A tiny picture of an image, by which copies are found although they were turned or compressed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.tiling import Window

SIDE = 16
# Two images are compared where both have data, which must be so much of the picture.
LEAST_SHARE = 0.5
# The difference of copies, in deviations of the picture; JPEG changes means of cells by far less.
MOST_DIFFERENCE = 0.02
# Grey pictures: water, cloud or snow all look alike in 16 x 16 means.
LEAST_CONTRAST = 0.02


class Likeness(NamedTuple):
    """Two images that show the same picture, and how the second one was turned against the first.

    ``turn`` is 0 for not at all; otherwise the copy was rotated, mirrored, or both.
    """

    first: int
    second: int
    turn: int


class ThumbSum:
    """Sums the pixels of an image into :data:`SIDE` x :data:`SIDE` cells, window by window."""

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._sums = np.zeros(SIDE * SIDE)
        self._counts = np.zeros(SIDE * SIDE)

    def add(self, grey: NDArray[np.float32], valid: NDArray[np.bool_], window: Window) -> None:
        """Add a window (H, W); pixels without data do not count."""
        rows = _cells(window.row, window.height, self._size[0])
        columns = _cells(window.column, window.width, self._size[1])
        cells = (rows[:, None] * SIDE + columns)[valid]
        self._sums += np.bincount(cells, weights=grey[valid], minlength=SIDE * SIDE)
        self._counts += np.bincount(cells, minlength=SIDE * SIDE)

    def result(self) -> NDArray[np.float64]:
        """Return the means of the cells (SIDE, SIDE); NaN where a cell has no data."""
        means = np.full(SIDE * SIDE, np.nan)
        filled = self._counts > 0
        means[filled] = self._sums[filled] / self._counts[filled]
        return means.reshape(SIDE, SIDE)


def find_alike(thumbs: Sequence[NDArray[np.float64] | None]) -> Iterator[Likeness]:
    """Yield the pairs of images that show the same picture, in whichever of the eight positions."""
    usable = [n for n, thumb in enumerate(thumbs) if thumb is not None and _is_telling(thumb)]
    means = np.array([np.nanmean(_known(thumbs[n])) for n in usable])
    spreads = np.array([np.nanstd(_known(thumbs[n])) for n in usable])
    order = np.argsort(means)
    for place, one in enumerate(order):
        # No turn changes the mean, so only neighbours by their means can be copies.
        near = MOST_DIFFERENCE * spreads[one]
        for other in order[place + 1 :]:
            if means[other] - means[one] > near:
                break
            first, second = sorted((usable[one], usable[other]))
            turn = _turned(_known(thumbs[first]), _known(thumbs[second]))
            if turn is not None:
                yield Likeness(first, second, turn)


def _turned(one: NDArray[np.float64], other: NDArray[np.float64]) -> int | None:
    for turn in range(8):
        moved = np.rot90(other.T if turn >= 4 else other, turn % 4)
        both = ~np.isnan(one) & ~np.isnan(moved)
        if both.mean() < LEAST_SHARE or (np.isnan(one) != np.isnan(moved)).any():
            continue
        difference = np.sqrt(np.mean((one[both] - moved[both]) ** 2))
        if difference <= MOST_DIFFERENCE * one[both].std():
            return turn
    return None


def _is_telling(thumb: NDArray[np.float64]) -> bool:
    known = thumb[~np.isnan(thumb)]
    if known.size < LEAST_SHARE * thumb.size:
        return False
    return bool(known.std() > LEAST_CONTRAST * max(abs(known.mean()), 1e-12))


def _known(thumb: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert thumb is not None
    return thumb


def _cells(first: int, number: int, size: int) -> NDArray[np.int64]:
    # By the pixels' centres, so that the cells of a mirrored image are the mirrored cells.
    return ((2 * np.arange(first, first + number) + 1) * SIDE) // (2 * size)
