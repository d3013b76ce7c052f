"""Things that are clutter: containers, heaps of soil, swimming pools and sports courts.

Letters: h w height and width of a window. Places are grid coordinates in metres.
"""

from dataclasses import replace

import numpy as np

from cvmh.datasets.synthetic.canvas import (
    CLUTTER,
    IMPERVIOUS,
    BoolArray,
    FloatArray,
    Footprint,
    cut,
    inside,
    tint,
)
from cvmh.datasets.synthetic.palette import CHALK, CONTAINERS, COURTS, POOLS, SOILS, pick
from cvmh.datasets.synthetic.world import World


def place_container(
    world: World, rng: np.random.Generator, u: float, v: float, *, turn: float
) -> None:
    """Put down a corrugated container."""
    length = float(rng.choice((6.1, 12.2)))
    place = world.grid.footprint(u, v, length, 2.45, turn=turn + rng.normal(0, 0.02))
    window = world.canvas.window(place)
    if window is None:
        return
    mask = inside(window, place)
    if (world.canvas.elevation[window.rows, window.cols][mask] > 0).any():
        return
    ribs = 1.0 + 0.1 * np.sign(np.sin(window.along * (2 * np.pi / 1.1)))
    colour = tint(pick(CONTAINERS, rng), ribs.astype(np.float32))
    world.canvas.paint(window, mask, colour, label=CLUTTER, elevation=2.6)


def place_heap(world: World, rng: np.random.Generator, u: float, v: float) -> None:
    """Pile up soil or gravel."""
    size = rng.uniform(6.0, 12.0)
    place = world.grid.footprint(u, v, size, size * 0.75)
    window = world.canvas.window(place)
    if window is None or min(window.shape) < 2:
        return
    lumps = cut(world.canvas.noise.mottle, rng, window.shape)
    reach = np.hypot(window.along / place.length, window.across / place.width) * 2
    dome = np.clip(1.0 - reach**2, 0.0, None) ** 1.5
    height = (dome * size * 0.2 * (1 + 0.15 * lumps)).astype(np.float32)
    slope_y, slope_x = np.gradient(height, world.canvas.gsd)
    light = world.style.sun.shade(slope_x, slope_y) * (1 + 0.05 * lumps)
    free = world.canvas.labels[window.rows, window.cols] != IMPERVIOUS
    colour = tint(pick(SOILS, rng), light.astype(np.float32))
    world.canvas.paint(window, free & (height > 0), colour, label=CLUTTER, elevation=height)


def place_pool(world: World, rng: np.random.Generator, u: float, v: float) -> None:
    """Sink a swimming pool with a pale rim."""
    place = world.grid.footprint(u, v, rng.uniform(7.0, 9.0), rng.uniform(3.6, 4.6))
    if not world.has_room(place):
        return
    rim = replace(place, length=place.length + 2.0, width=place.width + 2.0)
    if world.has_room(rim):
        world.canvas.paint_box(rng, rim, CHALK, label=IMPERVIOUS, grain=0.03)
    world.canvas.paint_box(rng, place, pick(POOLS, rng), label=CLUTTER, grain=0.015)


def place_court(world: World, rng: np.random.Generator, u: float, v: float) -> None:
    """Lay out a sports court with its lines."""
    place = world.grid.footprint(u, v, rng.uniform(22.0, 28.0), rng.uniform(12.0, 15.0))
    window = world.canvas.window(place)
    if window is None or not world.has_room(place):
        return
    world.canvas.paint_box(rng, place, pick(COURTS, rng), label=CLUTTER, grain=0.02)
    field = replace(place, length=place.length - 3.0, width=place.width - 3.0)
    lines = _outline(window.along, window.across, field)
    world.canvas.paint(window, lines, CHALK)


def _outline(along: FloatArray, across: FloatArray, place: Footprint) -> BoolArray:
    """Return the mask (h, w) of the lines of a court: border, middle line, circle."""
    from_end = place.length / 2 - np.abs(along)
    from_side = place.width / 2 - np.abs(across)
    border = np.abs(np.minimum(from_end, from_side)) < 0.14
    middle = (np.abs(along) < 0.14) & (from_side > 0)
    circle = np.abs(np.hypot(along, across) - place.width * 0.2) < 0.16
    return np.asarray(border | middle | circle)
