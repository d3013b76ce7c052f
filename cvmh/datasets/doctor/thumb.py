"""A tiny picture of an image, by which copies are found although they were turned or compressed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.tiling import Window

SIDE = 16
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
    """Sums the pixels of an image into :data:`SIDE` x :data:`SIDE` cells, window by window.

    Pixels without data count as 0, which is what they become in formats that know no nodata.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._sums = np.zeros((SIDE, SIDE))

    def add(self, grey: NDArray[np.float32], window: Window) -> None:
        """Add a window (H, W)."""
        rows = _weights(window.row, window.height, self._size[0])
        columns = _weights(window.column, window.width, self._size[1])
        self._sums += rows @ grey.astype(np.float64) @ columns.T

    def result(self) -> NDArray[np.float64]:
        """Return the means of the cells (SIDE, SIDE)."""
        return self._sums


def find_alike(thumbs: Sequence[NDArray[np.float64] | None]) -> Iterator[Likeness]:
    """Yield the pairs of images that show the same picture, in whichever of the eight positions."""
    usable = {n: t for n, t in enumerate(thumbs) if t is not None and _is_telling(t)}
    # No turn changes the mean, so only neighbours by their means can be copies.
    order = sorted(usable, key=lambda number: float(usable[number].mean()))
    for place, one in enumerate(order):
        highest = usable[one].mean() + MOST_DIFFERENCE * usable[one].std()
        for other in order[place + 1 :]:
            if usable[other].mean() > highest:
                break
            first, second = sorted((one, other))
            turn = _turned(usable[first], usable[second])
            if turn is not None:
                yield Likeness(first, second, turn)


def _turned(one: NDArray[np.float64], other: NDArray[np.float64]) -> int | None:
    for turn in range(8):
        moved = np.rot90(other.T if turn >= 4 else other, turn % 4)
        difference = np.sqrt(np.mean((one - moved) ** 2))
        if difference <= MOST_DIFFERENCE * one.std():
            return turn
    return None


def _is_telling(thumb: NDArray[np.float64]) -> bool:
    return bool(thumb.std() > LEAST_CONTRAST * max(abs(thumb.mean()), 1e-12))


def _weights(first: int, number: int, size: int) -> NDArray[np.float64]:
    """Return how much of each cell (SIDE, number) some rows or columns of an image fill."""
    cells = np.arange(SIDE)[:, None] * size / SIDE
    pixels = np.arange(first, first + number)
    shared = np.minimum(cells + size / SIDE, pixels + 1) - np.maximum(cells, pixels)
    return np.maximum(shared, 0) * SIDE / size
