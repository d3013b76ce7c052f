"""Where in the images of a split each class is: pixels of each class in a grid of cells.

From it a place is drawn without reading any label: a class, then a cell in proportion to its
pixels of that class.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.tiling import Window

# Rows and columns of a cell: Potsdam has 53,000 of them, and one is quickly read.
CELL = 128
# What numpy raises for a file that is damaged or was never one of its archives.
DAMAGED = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


class Found(NamedTuple):
    """A cell of an image, and the class that was looked for in it."""

    number: int
    cell: Window
    class_id: int


@dataclass(frozen=True)
class ClassIndex:
    """Counts of the pixels of each class in each cell of each image.

    Attributes:
        sizes: height and width of each image, (images, 2).
        num_classes: ids run from 0 to one less.
        classes: a class in a cell an entry, ordered by class, then by cell.
        cells: the entries' cells, counted through all images row by row.
        counts: the entries' pixels, at least 1.
    """

    sizes: NDArray[np.int64]
    num_classes: int
    classes: NDArray[np.uint8]
    cells: NDArray[np.uint32]
    counts: NDArray[np.uint16]

    @cached_property
    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class in all images."""
        totals = np.bincount(self.classes, weights=self.counts, minlength=self.num_classes)
        return totals.astype(np.int64)

    def draw(self, generator: np.random.Generator, odds: NDArray[np.float64]) -> Found:
        """Draw a class by its odds, then a cell in proportion to its pixels of that class."""
        class_id = int(generator.choice(self.num_classes, p=odds))
        first, end = self._bounds[class_id : class_id + 2]
        pixel = int(generator.integers(self._cumulative[first], self._cumulative[end]))
        entry = int(np.searchsorted(self._cumulative, pixel, side="right")) - 1
        return Found(*self._cell(int(self.cells[entry])), class_id)

    def to_bytes(self) -> bytes:
        """Return it as an archive of arrays that :meth:`from_bytes` reads back."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            sizes=self.sizes,
            num_classes=np.array(self.num_classes),
            classes=self.classes,
            cells=self.cells,
            counts=self.counts,
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "ClassIndex":
        """Read what :meth:`to_bytes` wrote; raises one of :data:`DAMAGED` if it is not that."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(
                arrays["sizes"],
                int(arrays["num_classes"]),
                arrays["classes"],
                arrays["cells"],
                arrays["counts"],
            )

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        return np.searchsorted(self.classes, np.arange(self.num_classes + 1))

    @cached_property
    def _cumulative(self) -> NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum(self.counts, dtype=np.int64)))

    @cached_property
    def _first_cells(self) -> NDArray[np.int64]:
        rows, columns = -(-self.sizes.T // CELL)
        return np.concatenate(([0], np.cumsum(rows * columns)))

    def _cell(self, cell: int) -> tuple[int, Window]:
        number = int(np.searchsorted(self._first_cells, cell, side="right")) - 1
        height, width = self.sizes[number].tolist()
        place = divmod(cell - int(self._first_cells[number]), -(-width // CELL))
        row, column = place[0] * CELL, place[1] * CELL
        return number, Window(row, column, min(CELL, height - row), min(CELL, width - column))


class ClassCounter:
    """Counts the classes of images, strip by strip, for a :class:`ClassIndex`."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._sizes: list[tuple[int, int]] = []
        self._counts: list[NDArray[np.uint16]] = []
        self._open = np.zeros((0, 0), dtype=np.int64)

    def begin(self, height: int, width: int) -> None:
        """Take up the next image."""
        self._finish()
        self._sizes.append((height, width))
        cells = -(-height // CELL) * -(-width // CELL)
        self._open = np.zeros((cells, self.num_classes), dtype=np.int64)

    def add(self, row: int, ids: NDArray[np.uint8]) -> None:
        """Count whole rows (H, W) of the image from ``row`` on; ids beyond the classes do not."""
        height, width = ids.shape
        across = -(-width // CELL)
        starts = [0, *range(CELL - row % CELL, height, CELL)]
        for start, end in zip(starts, [*starts[1:], height], strict=True):
            first = (row + start) // CELL * across
            for cell in range(across):
                # A cell at a time, because that fits in the processor's cache.
                part = ids[start:end, cell * CELL : (cell + 1) * CELL].ravel()
                self._open[first + cell] += np.bincount(part, minlength=256)[: self.num_classes]

    def result(self) -> ClassIndex:
        """Return what was counted."""
        self._finish()
        table = np.concatenate([np.zeros((0, self.num_classes), np.uint16), *self._counts])
        classes, cells = np.nonzero(table.T)
        return ClassIndex(
            np.array(self._sizes, dtype=np.int64).reshape(-1, 2),
            self.num_classes,
            classes.astype(np.uint8),
            cells.astype(np.uint32),
            table[cells, classes],
        )

    def _finish(self) -> None:
        if len(self._sizes) > len(self._counts):
            self._counts.append(self._open.astype(np.uint16))


def class_odds(pixels: Sequence[int] | NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return how often each class is drawn: its frequency ^ (1 - balance), scaled to sum to 1.

    A class that does not occur is never drawn.
    """
    counts = np.asarray(pixels, dtype=np.float64)
    odds = np.where(counts > 0, np.maximum(counts, 1.0) ** (1.0 - balance), 0.0)
    return np.asarray(odds / odds.sum())
