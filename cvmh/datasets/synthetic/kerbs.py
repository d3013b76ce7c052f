"""Offer places along the streets: for parked and driving cars, and for rows of trees."""

import numpy as np

from cvmh.datasets.synthetic.street_grid import PAVEMENT, Lines
from cvmh.datasets.synthetic.world import World

# Distance in metres that cars keep from a crossing, beyond the half width of the street across.
CLEARANCE = 7.0


def line_streets(world: World, rng: np.random.Generator) -> None:
    """Add slots along all streets and spots for trees on some pavements."""
    grid = world.grid
    _line(world, rng, grid.lines_u, grid.lines_v, along_u=False)
    _line(world, rng, grid.lines_v, grid.lines_u, along_u=True)


def _line(
    world: World, rng: np.random.Generator, lines: Lines, cross: Lines, *, along_u: bool
) -> None:
    turn = 0.0 if along_u else np.pi / 2
    start, end = float(cross.positions[0]), float(cross.positions[-1])
    for position, half in zip(lines.positions, lines.half_widths, strict=True):
        has_trees = rng.random() < 0.5
        for side in (-1.0, 1.0):
            kerb = float(position) + side * (float(half) - 1.25)
            for along in np.arange(start, end, 6.4) + rng.uniform(-1.0, 1.0):
                if _gap(cross, float(along)) > CLEARANCE:
                    u, v = (float(along), kerb) if along_u else (kerb, float(along))
                    world.add_slots(u, v, num_slots=1, step=(0, 0), turn=turn)
            if has_trees:
                row = float(position) + side * (float(half) + PAVEMENT + 0.4)
                _row_of_trees(world, rng, row, cross, along_u=along_u)


def _row_of_trees(
    world: World, rng: np.random.Generator, row: float, cross: Lines, *, along_u: bool
) -> None:
    radius = rng.uniform(2.2, 3.4)
    for along in np.arange(cross.positions[0], cross.positions[-1], rng.uniform(9.0, 14.0)):
        if _gap(cross, float(along)) > CLEARANCE:
            u, v = (float(along), row) if along_u else (row, float(along))
            world.add_spot(u, v, radius * rng.uniform(0.85, 1.15))


def _gap(cross: Lines, along: float) -> float:
    """Return the distance in metres to the edge of the nearest street across."""
    return float((np.abs(cross.positions - along) - cross.half_widths).min())
