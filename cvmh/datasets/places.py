"""Where crops are cut: anywhere, or where the rarer classes are.

All draws come from a generator that is given, so that a crop is where its number says.
"""

from typing import NamedTuple, Protocol

import numpy as np

from cvmh.datasets.class_index import ClassIndex, class_odds
from cvmh.datasets.reader import Reader
from cvmh.geo.tiling import Window


class Place(NamedTuple):
    """A window of an image."""

    number: int
    window: Window


class Places(Protocol):
    """Draws places; a window is smaller where its image is."""

    def draw(self, generator: np.random.Generator, height: int, width: int) -> Place:
        """Return a place of height x width pixels."""


class AnyPlaces:
    """An image in proportion to its area, then any window of it."""

    def __init__(self, reader: Reader) -> None:
        self._sizes = reader.sizes
        areas = np.array([height * width for height, width in reader.sizes], dtype=np.float64)
        self._cumulative = np.cumsum(areas / areas.sum())
        self._cumulative /= self._cumulative[-1]

    def draw(self, generator: np.random.Generator, height: int, width: int) -> Place:
        """Return a place of height x width pixels."""
        # What generator.choice does, which adds up the odds of all images at every call.
        number = int(np.searchsorted(self._cumulative, generator.random(), side="right"))
        rows, columns = self._sizes[number]
        height, width = min(height, rows), min(width, columns)
        row = int(generator.integers(rows - height + 1))
        column = int(generator.integers(columns - width + 1))
        return Place(number, Window(row, column, height, width))


class BalancedPlaces:
    """A class, then any of its pixels, then any window that the pixel is in.

    Args:
        reader: reads the label of the cell that the pixel is chosen in.
        index: where the classes are, in the images of the reader.
        balance: 1 for all classes alike, 0 for each in proportion to its pixels.
    """

    def __init__(self, reader: Reader, index: ClassIndex, balance: float) -> None:
        self._reader = reader
        self._index = index
        self._odds = class_odds(index.class_pixels, balance)

    def draw(self, generator: np.random.Generator, height: int, width: int) -> Place:
        """Return a place of height x width pixels."""
        number, cell, class_id = self._index.draw(generator, self._odds)
        label = self._reader.read_window(number, cell).label
        pixels = np.flatnonzero(label == class_id)
        # The index counted them, so there are some, unless the label was changed since.
        pixel = int(pixels[generator.integers(len(pixels))]) if len(pixels) else 0
        down, right = divmod(pixel, cell.width)
        rows, columns = self._reader.sizes[number]
        row, height = _around(generator, cell.row + down, height, rows)
        column, width = _around(generator, cell.column + right, width, columns)
        return Place(number, Window(row, column, height, width))


def _around(
    generator: np.random.Generator, pixel: int, length: int, available: int
) -> tuple[int, int]:
    """Return start and length of an interval within the available one that holds a pixel."""
    length = min(length, available)
    first = max(0, pixel - length + 1)
    last = min(pixel, available - length)
    return int(generator.integers(first, last + 1)), length
