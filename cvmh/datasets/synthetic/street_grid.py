"""A bent grid of streets, and the blocks between them.

Letters: H W height and width of the scene. The grid has coordinates (u, v) in metres that follow
its streets; x and y are metres on the ground.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.synthetic.canvas import FloatArray, Footprint
from cvmh.datasets.synthetic.style import Style, Use

# Width in metres of the pavement beside a street.
PAVEMENT = 1.9
# Half widths in metres of side streets and main streets.
SIDE_STREET = (3.1, 3.9)
MAIN_STREET = (5.0, 6.5)


class Point(NamedTuple):
    """A place on the ground in metres."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The parallel streets of one direction: positions and half widths (n,) in metres."""

    positions: FloatArray
    half_widths: FloatArray


@dataclass(frozen=True, kw_only=True)
class Block:
    """The ground between four streets, in grid coordinates, without street and pavement."""

    use: Use
    left: float
    right: float
    top: float
    bottom: float

    @property
    def length(self) -> float:
        """The extent along u in metres."""
        return self.right - self.left

    @property
    def width(self) -> float:
        """The extent along v in metres."""
        return self.bottom - self.top

    @property
    def middle(self) -> tuple[float, float]:
        """The centre (u, v)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class StreetGrid:
    """Two families of streets, bent by a slow wave."""

    def __init__(
        self, rng: np.random.Generator, style: Style, *, extent: tuple[float, float]
    ) -> None:
        self._angle = style.street_angle
        self._bend = style.bend
        self._wave = 2 * np.pi / style.bend_length
        self._phases = rng.uniform(0, 2 * np.pi, 2)
        height, width = extent
        corners = [
            self.to_grid(*np.array((x, y), dtype=np.float32))
            for x in (0, width)
            for y in (0, height)
        ]
        reach = 2 * style.bend
        us, vs = [float(c[0]) for c in corners], [float(c[1]) for c in corners]
        self.lines_u = _draw_lines(rng, min(us) - reach, max(us) + reach, style.block_length)
        self.lines_v = _draw_lines(rng, min(vs) - reach, max(vs) + reach, style.block_width)

    def to_grid(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the grid coordinates of places on the ground."""
        cos, sin = np.float32(np.cos(self._angle)), np.float32(np.sin(self._angle))
        a, b = x * cos + y * sin, y * cos - x * sin
        u = a + self._bend * np.sin(self._wave * b + self._phases[0])
        v = b + self._bend * np.sin(self._wave * a + self._phases[1])
        return u.astype(np.float32), v.astype(np.float32)

    def to_ground(self, u: float, v: float) -> Point:
        """Return the place on the ground of grid coordinates."""
        a, b = u, v
        # The waves are flat, so that each round shrinks the error at least fourfold.
        for _ in range(8):
            a = u - self._bend * np.sin(self._wave * b + self._phases[0])
            b = v - self._bend * np.sin(self._wave * a + self._phases[1])
        cos, sin = np.cos(self._angle), np.sin(self._angle)
        return Point(float(a * cos - b * sin), float(a * sin + b * cos))

    def footprint(
        self, u: float, v: float, length: float, width: float, *, turn: float = 0.0
    ) -> Footprint:
        """Return a rectangle at (u, v), its length turned against the u direction by an angle."""
        here, there = self.to_ground(u, v), self.to_ground(u + 1.0, v)
        angle = float(np.arctan2(there.y - here.y, there.x - here.x)) + turn
        return Footprint(x=here.x, y=here.y, angle=angle, length=length, width=width)

    @property
    def num_blocks(self) -> tuple[int, int]:
        """The number of blocks along u and along v, with those beyond the outermost streets."""
        return len(self.lines_u.positions) + 1, len(self.lines_v.positions) + 1

    def blocks(self, uses: NDArray[np.int_]) -> Iterator[Block]:
        """Yield the blocks between streets, given their uses as (blocks along u, along v)."""
        for i, (left, right) in enumerate(_spans(self.lines_u), start=1):
            for j, (top, bottom) in enumerate(_spans(self.lines_v), start=1):
                use = Use(int(uses[i, j]))
                yield Block(use=use, left=left, right=right, top=top, bottom=bottom)


def _spans(lines: Lines) -> list[tuple[float, float]]:
    starts = lines.positions + lines.half_widths + PAVEMENT
    ends = lines.positions - lines.half_widths - PAVEMENT
    return [(float(a), float(b)) for a, b in zip(starts[:-1], ends[1:], strict=True)]


def _draw_lines(rng: np.random.Generator, start: float, end: float, spacing: float) -> Lines:
    num_lines = int((end - start) / (0.7 * spacing)) + 3
    steps = spacing * rng.uniform(0.75, 1.3, num_lines)
    positions = start - spacing * rng.uniform(0.2, 1.0) + np.cumsum(steps) - steps[0]
    kept = positions[: int(np.searchsorted(positions, end)) + 1]
    is_main = (np.arange(len(kept)) + rng.integers(3)) % 3 == 0
    halves = np.where(
        is_main, rng.uniform(*MAIN_STREET, len(kept)), rng.uniform(*SIDE_STREET, len(kept))
    )
    return Lines(positions=kept.astype(np.float32), half_widths=halves.astype(np.float32))
