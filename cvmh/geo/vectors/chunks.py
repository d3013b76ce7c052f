"""A mask chunk by chunk: each with the pixels around it, those without data never read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.errors import RasterError
from cvmh.geo.coverage import find_coverage
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

# A chunk is halved at most so often.
MAX_HALVINGS = 4


class Chunk(NamedTuple):
    """A part of a mask: where it is, and its class ids with one pixel around it, 255 outside."""

    window: Window
    padded: NDArray[np.uint8]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """The class ids (H, W) of the chunk itself."""
        return self.padded[1:-1, 1:-1]

    @property
    def is_empty(self) -> bool:
        """True if no pixel of the chunk is data."""
        return bool((self.classes == NODATA_ID).all())

    def quarter(self, side: int) -> Iterator["Chunk"]:
        """Yield its parts of at most ``side`` pixels a side, in raster order."""
        for row in range(0, self.window.height, side):
            height = min(side, self.window.height - row)
            for column in range(0, self.window.width, side):
                width = min(side, self.window.width - column)
                yield Chunk(
                    Window(self.window.row + row, self.window.column + column, height, width),
                    self.padded[row : row + height + 2, column : column + width + 2],
                )


@dataclass(frozen=True)
class ChunkGrid:
    """How a mask is cut: ``side`` is that of a chunk in pixels."""

    height: int
    width: int
    side: int

    @property
    def spacing(self) -> int:
        """The side of the smallest parts that a chunk can be halved to."""
        side = self.side
        for _ in range(MAX_HALVINGS):
            side = side if side % 2 else side // 2
        return side

    def rows(self) -> Iterator[list[Window]]:
        """Yield the chunks from top to bottom, each row from left to right."""
        for row in range(0, self.height, self.side):
            height = min(self.side, self.height - row)
            yield [
                Window(row, column, height, min(self.side, self.width - column))
                for column in range(0, self.width, self.side)
            ]


class ChunkReader:
    """Reads the chunks of a mask.

    Args:
        mask: the open mask, with one band of dtype uint8.
        num_classes: class ids from here to 254 are refused.

    Raises:
        RasterError: the raster is not a mask.
    """

    def __init__(self, mask: Raster, num_classes: int) -> None:
        check_band(mask, "a mask")
        self._mask = mask
        self._num_classes = num_classes
        # What is not stored reads as the declared nodata, or as 0, which is a class.
        self._coverage = find_coverage(mask, [1]) if mask.nodata[0] == NODATA_ID else None

    def read(self, window: Window) -> Chunk | None:
        """Return a chunk, None if no pixel of it is data.

        Raises:
            RasterError: the mask is damaged, or holds an id that is no class.
        """
        top, left = max(window.row - 1, 0), max(window.column - 1, 0)
        bottom = min(window.row + window.height + 1, self._mask.height)
        right = min(window.column + window.width + 1, self._mask.width)
        if self._coverage is not None and not bool(
            self._coverage.meets(
                window.row, window.rows.stop, window.column, window.columns.stop
            ).all()
        ):
            return None
        padded = np.full((window.height + 2, window.width + 2), NODATA_ID, dtype=np.uint8)
        row, column = window.row - 1, window.column - 1
        padded[top - row : bottom - row, left - column : right - column] = self._mask.read(
            Window(top, left, bottom - top, right - left), [1]
        )[0]
        chunk = Chunk(window, padded)
        if chunk.is_empty:
            return None
        self._check_ids(chunk)
        return chunk

    def _check_ids(self, chunk: Chunk) -> None:
        known = np.zeros(256, dtype=bool)
        known[: self._num_classes] = known[NODATA_ID] = True
        found = np.bincount(chunk.classes.ravel(), minlength=256) > 0
        if (found & ~known).any():
            raise RasterError(
                f"{self._mask.path} holds the id {np.flatnonzero(found & ~known)[0]} in "
                f"{chunk.window}, but the class table has ids 0..{self._num_classes - 1}; "
                "give the table that the mask was made with"
            )


def check_band(raster: Raster, what: str) -> None:
    """Refuse a raster that does not have a single band of dtype uint8.

    Raises:
        RasterError: it has several bands or another dtype.
    """
    if raster.num_bands != 1 or raster.dtypes[0] != "uint8":
        raise RasterError(
            f"{what} has one band of dtype uint8, but {raster.path} has {raster.num_bands} "
            f"of {', '.join(sorted(set(raster.dtypes)))}"
        )
