"""Tiles of a scene as the network wants them, every block of the file read once.

Legend: C bands, H height, W width.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Span, Stripe, TilePlan, Window
from cvmh.predict.source import Source

# Rows are read in chunks of whole blocks of the file, of at least so many rows ...
MIN_CHUNK = 128
# ... and at most so many: a file of one huge block is read in parts, from GDAL's cache if it fits.
MAX_CHUNK = 1024
# A chunk is read in pieces of about this many bytes, which stay in the processor's cache.
PIECE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One window of a scene that holds data: pixels scaled for the network, and where data is.

    ``input_size`` is the (height, width) that the network wants of it.
    """

    stripe: int
    window: Window
    pixels_CHW: NDArray[np.float32]
    is_valid_HW: NDArray[np.bool_]
    input_size: tuple[int, int]


class SceneReader:
    """Reads the tiles of a span of columns from top to bottom.

    The rows that tiles still need are kept in a ring: bands x (tile + chunk) x span in the scene's
    own dtype, whatever its height. What no tile needs is not read.

    Args:
        source: the open scene.
        plan: the tiles.
        span: the columns that must become final.
    """

    def __init__(self, source: Source, plan: TilePlan, span: Span) -> None:
        self._source, self._plan, self._span = source, plan, span
        self._raster, self._bands = source.raster, source.bands
        self._cover = covering_span(plan, span)
        self._chunk = chunk_rows(source.raster)
        width = self._cover.end - self._cover.first
        self._ring_rows = ring_rows(plan, self._chunk)
        self._pixels = np.empty(
            (len(self._bands), self._ring_rows, width), dtype=source.raster.dtype_of(source.bands)
        )
        self._is_valid = np.zeros((self._ring_rows, width), dtype=bool)
        self._next_row: int | None = None
        self._is_closed = False
        self._wanted: dict[int, tuple[int, ...]] = {}
        self.seconds = 0.0

    def tiles(self, first: int) -> Iterator[Tile]:
        """Yield the tiles that hold data, stripe by stripe, from the ``first`` stripe on.

        They end early where another thread closes the reader.

        Raises:
            RasterError: the scene is damaged.
        """
        for index in range(first, self._plan.num_stripes):
            stripe = self._plan.stripe(index)
            columns = self._columns_of(index)
            started = time.perf_counter()
            if columns:
                self._load(stripe)
            for column in columns:
                if self._is_closed:
                    return
                tile = self._cut(stripe, column)
                if tile is not None:
                    self.seconds += time.perf_counter() - started
                    yield tile
                    started = time.perf_counter()
            self.seconds += time.perf_counter() - started
            self._wanted.pop(index, None)

    def close(self) -> None:
        """End the reading after the piece that is being read, though no tile may be in sight."""
        self._is_closed = True

    def _columns_of(self, index: int) -> tuple[int, ...]:
        """Return where the tiles of a stripe begin that may hold data."""
        if index not in self._wanted:
            stripe = self._plan.stripe(index).within(self._span)
            hold = self._source.may_hold(stripe)
            self._wanted[index] = tuple(
                column for column, may in zip(stripe.columns, hold, strict=True) if may
            )
        return self._wanted[index]

    def _load(self, stripe: Stripe) -> None:
        """Bring the rows of a stripe into the ring."""
        start = stripe.row // self._chunk * self._chunk
        if self._next_row is None or self._next_row < start:
            self._next_row = start
        while self._next_row < stripe.end_row:
            end = min(self._next_row + self._chunk, self._plan.height)
            for span in self._needed(self._next_row, end, stripe.index):
                if self._is_closed:
                    return
                rows, columns = end - self._next_row, span.end - span.first
                self._read(Window(self._next_row, span.first, rows, columns))
            self._next_row = end

    def _needed(self, row: int, end: int, first: int) -> Iterator[Span]:
        """Yield the columns that tiles of this stripe and later ones need of some rows."""
        block = self._raster.block_shape[1]
        is_needed = np.zeros(-(-self._plan.width // block), dtype=bool)
        for index in range(first, self._plan.num_stripes):
            if self._plan.rows[index] >= end:
                break
            if self._plan.rows[index] + self._plan.tile_height <= row:
                continue
            for column in self._columns_of(index):
                last = column + self._plan.tile_widths[index] - 1
                is_needed[column // block : last // block + 1] = True
        edges = np.flatnonzero(np.diff(is_needed, prepend=False, append=False))
        step = self._piece_columns(end - row, block)
        for begin, stop in zip(edges[::2] * block, edges[1::2] * block, strict=True):
            for column in range(int(begin), int(stop), step):
                span = Span(
                    max(column, self._cover.first),
                    min(column + step, int(stop), self._cover.end),
                )
                if span.first < span.end:
                    yield span

    def _piece_columns(self, rows: int, block: int) -> int:
        per_column = rows * len(self._bands) * self._pixels.itemsize
        return max(1, PIECE_BYTES // (per_column * block)) * block

    def _read(self, window: Window) -> None:
        first = window.column - self._cover.first
        columns = slice(first, first + window.width)
        # Alpha and masks are small; where they leave nothing, the pixels are not decoded.
        is_valid = self._source.validity.read_outline(window)
        native = self._raster.read(window, self._bands) if is_valid.any() else None
        if native is not None:
            is_valid = self._source.validity.judge(native, is_valid)
        for ring, part in wrapped(window.row, window.height, self._ring_rows):
            if native is not None:
                self._pixels[:, ring, columns] = native[:, part]
            self._is_valid[ring, columns] = is_valid[part]

    def _cut(self, stripe: Stripe, column: int) -> Tile | None:
        """Copy a tile out of the ring; None if no pixel of it is data."""
        window = Window(stripe.row, column, stripe.height, stripe.width)
        columns = slice(column - self._cover.first, column - self._cover.first + stripe.width)
        parts = [ring for ring, _ in wrapped(stripe.row, stripe.height, self._ring_rows)]
        is_valid = np.concatenate([self._is_valid[ring, columns] for ring in parts])
        if not is_valid.any():
            return None
        native = np.concatenate([self._pixels[:, ring, columns] for ring in parts], axis=1)
        return Tile(
            stripe=stripe.index,
            window=window,
            pixels_CHW=self._source.scaling.scale(native, is_valid),
            is_valid_HW=is_valid,
            input_size=(stripe.input_height, stripe.input_width),
        )


def covering_span(plan: TilePlan, span: Span) -> Span:
    """Return the columns of all tiles that meet a span."""
    stripes = [stripe.within(span) for stripe in plan.stripes()]
    return Span(
        min(stripe.columns[0] for stripe in stripes),
        max(stripe.columns[-1] + stripe.width for stripe in stripes),
    )


def chunk_rows(raster: Raster) -> int:
    """Return how many rows of a scene are read at a time: whole blocks of its file."""
    block = raster.block_shape[0]
    return min(block * -(-MIN_CHUNK // block), max(MAX_CHUNK, MIN_CHUNK))


def ring_rows(plan: TilePlan, chunk: int) -> int:
    """Return the rows that a reader keeps: those of a tile and of the chunk that it ends in."""
    return min(plan.tile_height + 2 * chunk, -(-plan.height // chunk) * chunk)


def wrapped(row: int, count: int, ring: int) -> Iterator[tuple[slice, slice]]:
    """Yield where rows lie in a ring of rows, in one or two parts: (in the ring, of the rows)."""
    done = 0
    while done < count:
        place = (row + done) % ring
        part = min(count - done, ring - place)
        yield slice(place, place + part), slice(done, done + part)
        done += part
