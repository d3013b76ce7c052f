"""Park cars.

Letters: h w height and width of a window.
"""

from dataclasses import replace

import numpy as np

from cvmh.datasets.synthetic.canvas import CAR, FloatArray, Footprint, tint
from cvmh.datasets.synthetic.palette import CARS, pick
from cvmh.datasets.synthetic.world import World

# Pieces along a car from bumper to bumper: start and end as shares of its half length, width as a
# share of its half width, brightness. First all the glass, then the roof over it.
PIECES = (
    (-0.62, 0.42, 0.92, 0.30),
    (-0.44, 0.14, 0.72, 1.10),
)
# Ground that one car covers in square metres.
CAR_AREA = 8.0


def park_cars(world: World, rng: np.random.Generator, *, num_cars: int) -> int:
    """Put up to a number of cars into the free slots, in random order; return how many fitted."""
    num_parked = 0
    for k in rng.permutation(len(world.slots)):
        if num_parked >= num_cars:
            break
        slot = world.slots[k]
        place = replace(
            slot,
            angle=slot.angle + rng.normal(0.0, 0.02) + np.pi * rng.integers(2),
            length=slot.length * rng.uniform(0.93, 1.1),
            width=slot.width * rng.uniform(0.96, 1.08),
        )
        if world.is_paved(place):
            _paint_car(world, rng, place)
            num_parked += 1
    return num_parked


def _paint_car(world: World, rng: np.random.Generator, place: Footprint) -> None:
    window = world.canvas.window(place)
    assert window is not None
    a, b = window.along / (place.length / 2), window.across / (place.width / 2)
    body = a**6 + np.abs(b) ** 4 <= 1.0
    height = np.where(np.abs(a + 0.1) < 0.55, 1.5, 0.9).astype(np.float32)
    colour = pick(CARS, rng)
    world.canvas.paint(window, body, tint(colour, _finish(a, b)), label=CAR, elevation=height)


def _finish(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the brightness of the pieces of a car over its window (h, w)."""
    light = np.where(np.abs(a) > 0.9, 0.85, 1.0)
    for start, end, width, brightness in PIECES:
        light = np.where((a > start) & (a < end) & (np.abs(b) < width), brightness, light)
    return light.astype(np.float32)
