"""Raise buildings: roofs of several kinds, lit by the sun of the scene.

Letters: h w height and width of a window.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvmh.datasets.synthetic.canvas import (
    BUILDING,
    BoolArray,
    FloatArray,
    Footprint,
    Window,
    inside,
    tint,
)
from cvmh.datasets.synthetic.palette import MATERIALS, ROOF_BIAS, pick
from cvmh.datasets.synthetic.world import World


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A roof over a window (h, w): rise above the eaves in metres, and its two slopes."""

    rise: FloatArray
    slope_along: FloatArray
    slope_across: FloatArray


def _gabled(window: Window, place: Footprint, pitch: float) -> Surface:
    rise = (place.width / 2 - np.abs(window.across)) * pitch
    return Surface(
        rise=rise.astype(np.float32),
        slope_along=np.zeros_like(rise),
        slope_across=(-np.sign(window.across) * pitch).astype(np.float32),
    )


def _hipped(window: Window, place: Footprint, pitch: float) -> Surface:
    to_end = place.length / 2 - np.abs(window.along)
    to_side = place.width / 2 - np.abs(window.across)
    is_end = to_end < to_side
    return Surface(
        rise=(np.minimum(to_end, to_side) * pitch).astype(np.float32),
        slope_along=np.where(is_end, -np.sign(window.along) * pitch, 0.0).astype(np.float32),
        slope_across=np.where(is_end, 0.0, -np.sign(window.across) * pitch).astype(np.float32),
    )


def _flat(window: Window, place: Footprint, pitch: float) -> Surface:
    # Parapet: a raised rim, so that it catches light and throws a line of shadow inwards.
    rim = ~inside(window, place, inset=0.5)
    level = np.zeros_like(window.along)
    return Surface(rise=rim * np.float32(0.7), slope_along=level, slope_across=level)


SHAPES: dict[str, Callable[[Window, Footprint, float], Surface]] = {
    "gabled": _gabled,
    "hipped": _hipped,
    "flat": _flat,
}


def raise_building(
    world: World, rng: np.random.Generator, place: Footprint, *, shape: str, eaves: float
) -> bool:
    """Paint one building with its details; return whether there was room for it.

    Args:
        world: changed in place.
        rng: the generator.
        place: the outline.
        shape: a key of SHAPES.
        eaves: height of the walls in metres.
    """
    window = world.canvas.window(place)
    if window is None or not world.has_room(place):
        return False
    colour = pick(MATERIALS, rng, weights=world.style.material_weights * ROOF_BIAS)
    surface = SHAPES[shape](window, place, rng.uniform(0.5, 0.95))
    mask = inside(window, place)
    gutter = np.where(inside(window, place, inset=0.35), 1.0, 0.72).astype(np.float32)
    light = (
        gutter * _light(world, place, surface) * _cover(world, rng, window, is_flat=shape == "flat")
    )
    height = surface.rise + np.float32(eaves)
    world.canvas.paint(window, mask, tint(colour, light), label=BUILDING, elevation=height)
    _furnish(world, rng, window, place, mask & (height >= eaves), is_flat=shape == "flat")
    return True


def _light(world: World, place: Footprint, surface: Surface) -> FloatArray:
    cos, sin = np.float32(np.cos(place.angle)), np.float32(np.sin(place.angle))
    slope_x = surface.slope_along * cos - surface.slope_across * sin
    slope_y = surface.slope_along * sin + surface.slope_across * cos
    ridge = np.where(np.abs(surface.rise - surface.rise.max()) < 0.16, 1.2, 1.0)
    return np.asarray(world.style.sun.shade(slope_x, slope_y) * ridge, dtype=np.float32)


def _cover(world: World, rng: np.random.Generator, window: Window, *, is_flat: bool) -> FloatArray:
    """Return the texture of the roofing: courses of tiles, or seams of sheets."""
    texture = world.canvas.noise.texture(rng, window.shape, grain=0.035, mottle=0.03)
    pitch, depth = (rng.uniform(2.4, 4.0), 0.4) if is_flat else (rng.uniform(1.0, 1.3), 0.4)
    groove = np.mod(window.across, pitch) < (0.4 if is_flat else pitch / 2)
    if is_flat:
        groove |= np.mod(window.along, 2 * pitch) < 0.4
    return np.asarray(texture * np.where(groove, 1.0 - depth, 1.0), dtype=np.float32)


def _furnish(
    world: World,
    rng: np.random.Generator,
    window: Window,
    place: Footprint,
    mask: BoolArray,
    *,
    is_flat: bool,
) -> None:
    """Put vents, skylights, chimneys or solar panels on a roof."""
    area = place.length * place.width
    num_items = int(rng.poisson(area / (45.0 if is_flat else 60.0)))
    elevation = world.canvas.elevation[window.rows, window.cols]
    for _ in range(num_items):
        a = rng.uniform(-0.4, 0.4) * place.length
        b = rng.uniform(-0.35, 0.35) * place.width
        size = rng.uniform(0.5, 1.6 if is_flat else 0.9, 2)
        item = (np.abs(window.along - a) < size[0]) & (np.abs(window.across - b) < size[1])
        item &= mask
        grey = np.full(3, rng.uniform(60, 210), dtype=np.float32)
        raised = elevation + np.float32(rng.uniform(0.2, 1.4))
        world.canvas.paint(window, item, grey, elevation=raised)
    if rng.random() < 0.22:
        _solar(world, rng, window, place, mask)


def _solar(
    world: World, rng: np.random.Generator, window: Window, place: Footprint, mask: BoolArray
) -> None:
    side = rng.choice((-1.0, 1.0))
    field = Footprint(x=0, y=0, angle=0, length=place.length * 0.6, width=place.width * 0.28)
    across = np.abs(window.across - side * place.width * 0.25)
    panels = (np.abs(window.along) < field.length / 2) & (across < field.width / 2) & mask
    frame = (np.mod(window.along, 1.1) < 0.16) | (np.mod(window.across, 1.7) < 0.16)
    glow = np.where(frame, 1.5, 1.0).astype(np.float32)
    world.canvas.paint(window, panels, tint(np.array((46, 54, 78), dtype=np.float32), glow))
