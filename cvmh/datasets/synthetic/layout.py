"""Where every pixel lies: its grid coordinates, its block, and the streets near it.

Letters: H W height and width of the scene.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.synthetic.canvas import BoolArray, FloatArray
from cvmh.datasets.synthetic.street_grid import PAVEMENT, Lines, StreetGrid
from cvmh.datasets.synthetic.style import RURAL


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One family of streets, pixel by pixel (H, W)."""

    index: NDArray[np.intp]
    """Number of the nearest street."""
    offset: FloatArray
    """Signed distance in metres to its centre line."""
    half_width: FloatArray
    """Its half width in metres, negative where it does not run."""
    is_built_up: BoolArray
    """True where the street has pavements and markings."""

    @property
    def roadbed(self) -> BoolArray:
        """True on the street (H, W)."""
        return np.asarray(np.abs(self.offset) < self.half_width)

    @property
    def pavement(self) -> BoolArray:
        """True on the street and its pavements (H, W)."""
        return np.asarray(
            (np.abs(self.offset) < self.half_width + PAVEMENT)
            & self.is_built_up
            & (self.half_width > 0)
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Grid coordinates u and v in metres, and the two block numbers of every pixel (H, W)."""

    u: FloatArray
    v: FloatArray
    block_u: NDArray[np.intp]
    block_v: NDArray[np.intp]

    def areas(self, validity: BoolArray, grid: StreetGrid) -> NDArray[np.int_]:
        """Return the visible pixels of every block, as (blocks along u, along v)."""
        num_u, num_v = grid.num_blocks
        number = (self.block_u * num_v + self.block_v)[validity]
        return np.bincount(number, minlength=num_u * num_v).reshape(num_u, num_v)


def lay_out(grid: StreetGrid, shape: tuple[int, int], *, gsd: float) -> Layout:
    """Return the layout of a scene of (H, W) pixels."""
    y = (np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(0.5)) * np.float32(gsd)
    x = (np.arange(shape[1], dtype=np.float32)[None, :] + np.float32(0.5)) * np.float32(gsd)
    u, v = grid.to_grid(x, y)
    return Layout(
        u=u,
        v=v,
        block_u=np.searchsorted(grid.lines_u.positions, u),
        block_v=np.searchsorted(grid.lines_v.positions, v),
    )


def lay_strips(layout: Layout, grid: StreetGrid, uses: NDArray[np.int_]) -> tuple[Strip, Strip]:
    """Return the streets that run along v (at fixed u), and those that run along u."""
    return (
        _lay_strip(grid.lines_u, layout.u, layout.block_v, uses),
        _lay_strip(grid.lines_v, layout.v, layout.block_u, uses.T),
    )


def _lay_strip(
    lines: Lines, across: FloatArray, block: NDArray[np.intp], uses: NDArray[np.int_]
) -> Strip:
    """Lay the streets at positions across; uses are (blocks across, blocks along)."""
    middles = (lines.positions[:-1] + lines.positions[1:]) / 2
    index = np.searchsorted(middles, across)
    is_rural = np.isin(uses, RURAL)
    runs = ~(is_rural[:-1] & is_rural[1:])
    # Country lanes are narrower: their kerbs lie where the fields begin.
    is_built_up = ~(is_rural[:-1] | is_rural[1:])
    halves = np.where(runs, lines.half_widths[:, None], np.float32(-9.0))
    halves = np.where(runs & ~is_built_up, np.float32(0.75) * halves, halves)
    return Strip(
        index=index,
        offset=across - lines.positions[index],
        half_width=halves.astype(np.float32)[index, block],
        is_built_up=is_built_up[index, block],
    )
