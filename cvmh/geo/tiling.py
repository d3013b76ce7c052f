"""Where tiles lie on a raster, and how their scores are weighted: pure arithmetic.

Legend: H height, W width, in pixels; row before column everywhere.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import ConfigError


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: its first row and column, its height and width."""

    row: int
    column: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows as a slice of the raster."""
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        """The columns as a slice of the raster."""
        return slice(self.column, self.column + self.width)

    def __str__(self) -> str:
        """Name the window as error messages do; ends are exclusive."""
        return (
            f"rows {self.row}..{self.row + self.height}, "
            f"columns {self.column}..{self.column + self.width}"
        )


class Span(NamedTuple):
    """Columns of a raster, ``end`` exclusive."""

    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """A row of tiles of one size, and the raster rows that it is the last to touch.

    ``columns`` is where the tiles begin; the final rows run from ``row`` to ``end_final_row``
    (exclusive). ``input_height`` and ``input_width`` are what the network sees of a tile: as many
    pixels as the tile has, unless the scene is resampled.
    """

    index: int
    row: int
    height: int
    width: int
    columns: tuple[int, ...]
    end_final_row: int
    input_height: int
    input_width: int

    @property
    def end_row(self) -> int:
        """The row after the last one of the tiles."""
        return self.row + self.height

    @property
    def windows(self) -> tuple[Window, ...]:
        """The tiles from left to right."""
        return tuple(Window(self.row, column, self.height, self.width) for column in self.columns)

    def at(self, column: int) -> Self:
        """Return the stripe with only the tile that begins at a column."""
        return replace(self, columns=(column,))

    def within(self, span: Span) -> Self:
        """Return the stripe with only those tiles that meet some columns."""
        first = bisect_right(self.columns, span.first - self.width)
        end = bisect_left(self.columns, span.end)
        return replace(self, columns=self.columns[first:end])


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Tiles that cover a raster, as stripes; one tuple entry a stripe.

    All tiles have one size, but where the scene is resampled and its pixels are not equally wide
    on the ground: there a stripe has tiles of its own width. ``magnification`` is the number of
    (rows, columns) of the scene that one pixel of the network's input stands for.
    """

    height: int
    width: int
    tile_height: int
    rows: tuple[int, ...]
    tile_widths: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]
    magnification: tuple[tuple[float, float], ...]

    @property
    def num_tiles(self) -> int:
        """The number of tiles of the whole raster."""
        return sum(map(len, self.columns))

    @property
    def num_stripes(self) -> int:
        """The number of stripes."""
        return len(self.rows)

    @property
    def is_resampled(self) -> bool:
        """True if the network sees pixels of another size than the scene's."""
        return any(pair != (1, 1) for pair in self.magnification)

    def stripe(self, index: int) -> Stripe:
        """Return one stripe, counted from 0 at the top."""
        rows, columns = self.magnification[index]
        width = self.tile_widths[index]
        return Stripe(
            index=index,
            row=self.rows[index],
            height=self.tile_height,
            width=width,
            columns=self.columns[index],
            end_final_row=self.rows[index + 1] if index + 1 < len(self.rows) else self.height,
            input_height=max(1, round(self.tile_height / rows)),
            input_width=max(1, round(width / columns)),
        )

    def stripes(self, first: int = 0) -> Iterator[Stripe]:
        """Yield the stripes from top to bottom, from the ``first`` on."""
        return (self.stripe(index) for index in range(first, len(self.rows)))

    def first_touching(self, index: int) -> int:
        """Return the first stripe whose tiles reach into the final rows of a stripe."""
        return bisect_right(self.rows, self.rows[index] - self.tile_height, 0, index)


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int,
    overlap: float,
    magnify: Callable[[float], tuple[float, float]] | None = None,
) -> TilePlan:
    """Cover a raster with tiles of one size that all lie inside it.

    A tile longer than the raster is clamped to it; the last tile of each row and column is
    shifted inwards, so it may overlap its neighbour more than asked.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        tile: side of the network's input in pixels.
        overlap: share of a tile's side that neighbours have in common at least, 0 <= overlap < 0.9.
        magnify: gives, for a row of the raster, how many (rows, columns) of the raster one pixel
            of the network's input stands for; default (1, 1).

    Raises:
        ConfigError: the tile is not positive, or the overlap is out of range.
    """
    if tile < 1:
        raise ConfigError(f"tile size must be at least 1 pixel, got {tile}")
    if not 0 <= overlap < 0.9:
        raise ConfigError(f"overlap must be a share from 0 to below 0.9, got {overlap}; try 0.25")
    magnify = magnify or (lambda row: (1, 1))
    in_rows = magnify(height / 2)[0]
    tile_height = min(max(1, round(tile * in_rows)), height)
    rows = _starts(height, tile_height, overlap)
    magnification = tuple((in_rows, magnify(row + tile_height / 2)[1]) for row in rows)
    tile_widths = tuple(min(max(1, round(tile * pair[1])), width) for pair in magnification)
    # Stripes of one width share the tuple of their columns: a million tiles take no memory.
    shared = {side: _starts(width, side, overlap) for side in set(tile_widths)}
    return TilePlan(
        height=height,
        width=width,
        tile_height=tile_height,
        rows=rows,
        tile_widths=tile_widths,
        columns=tuple(shared[side] for side in tile_widths),
        magnification=magnification,
    )


def split_columns(width: int, *, widest: int, align: int = 1) -> tuple[Span, ...]:
    """Cut the columns of a raster into spans of about equal width, none wider than ``widest``.

    Args:
        width: columns of the raster.
        widest: the most columns of a span.
        align: spans begin at multiples of this where they stay narrow enough, such as the width
            of the file's blocks.
    """
    count = -(-width // max(1, widest))
    step = -(-width // count)
    aligned = -(-step // align) * align
    step = aligned if aligned <= widest else step
    return tuple(Span(first, min(first + step, width)) for first in range(0, width, step))


def blend_weights(height: int, width: int) -> NDArray[np.float32]:
    """Return the (H, W) weight of each pixel of a tile: sin^2 along both sides, never zero.

    Sampled at pixel centres, so that a border pixel that only one tile sees keeps its score.
    """
    return np.outer(_ramp(height), _ramp(width)).astype(np.float32)


def _ramp(size: int) -> NDArray[np.float64]:
    return np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2


def _starts(size: int, tile: int, overlap: float) -> tuple[int, ...]:
    stride = max(1, int(tile * (1 - overlap)))
    last = size - tile
    return (*range(0, last, stride), last)
