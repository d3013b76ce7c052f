"""Where tiles lie on a raster, and how their scores are weighted: pure arithmetic.

Legend: H height, W width, in pixels; row before column everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """A row of tiles, and the raster rows (end exclusive) that no later stripe touches."""

    windows: tuple[Window, ...]
    first_final_row: int
    end_final_row: int


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Equal tiles that cover a raster; ``rows`` and ``columns`` are where tiles begin."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def num_tiles(self) -> int:
        """The number of tiles of the whole raster."""
        return len(self.rows) * len(self.columns)

    def stripes(self) -> Iterator[Stripe]:
        """Yield the stripes from top to bottom, their tiles from left to right."""
        ends = (*self.rows[1:], self.height)
        for row, end in zip(self.rows, ends, strict=True):
            windows = tuple(
                Window(row, column, self.tile_height, self.tile_width) for column in self.columns
            )
            yield Stripe(windows=windows, first_final_row=row, end_final_row=end)


def plan_tiles(height: int, width: int, *, tile: int, overlap: float) -> TilePlan:
    """Cover a raster with tiles of one size that all lie inside it.

    A tile longer than the raster is clamped to it; the last tile of each row and column is
    shifted inwards, so it may overlap its neighbour more than asked.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        tile: side of a tile in pixels.
        overlap: share of a tile's side that neighbours have in common at least, 0 <= overlap < 0.9.

    Raises:
        ConfigError: the tile is not positive, or the overlap is out of range.
    """
    if tile < 1:
        raise ConfigError(f"tile size must be at least 1 pixel, got {tile}")
    if not 0 <= overlap < 0.9:
        raise ConfigError(f"overlap must be a share from 0 to below 0.9, got {overlap}; try 0.25")
    tile_height, tile_width = min(tile, height), min(tile, width)
    return TilePlan(
        height=height,
        width=width,
        tile_height=tile_height,
        tile_width=tile_width,
        rows=_starts(height, tile_height, overlap),
        columns=_starts(width, tile_width, overlap),
    )


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
