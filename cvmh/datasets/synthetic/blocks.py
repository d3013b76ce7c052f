"""Fill street blocks with what belongs there, use by use.

Lengths are in metres, in the grid coordinates of the block.
"""

from collections.abc import Callable

import numpy as np

from cvmh.datasets.synthetic.buildings import raise_building
from cvmh.datasets.synthetic.canvas import IMPERVIOUS, LOW_VEGETATION, FloatArray
from cvmh.datasets.synthetic.furniture import place_container, place_court, place_heap, place_pool
from cvmh.datasets.synthetic.palette import CHALK, CROPS, MATERIALS, PAVING_BIAS, pick
from cvmh.datasets.synthetic.street_grid import PAVEMENT, Block
from cvmh.datasets.synthetic.style import Use
from cvmh.datasets.synthetic.world import World

# Size of a parking bay, and width of the lane between two rows of bays.
BAY_WIDTH = 2.55
BAY_LENGTH = 5.0
AISLE = 5.6


def fill_block(world: World, block: Block, rng: np.random.Generator) -> None:
    """Build on a block according to its use."""
    FILLERS[block.use](world, block, rng)


def _pave(
    world: World, rng: np.random.Generator, colour: FloatArray, u: float, v: float, *size: float
) -> None:
    """Pave a rectangle of a size (along u, along v)."""
    place = world.grid.footprint(u, v, size[0], size[1])
    if world.has_room(place):
        world.canvas.paint_box(rng, place, colour, label=IMPERVIOUS)


def _scatter_trees(
    world: World, block: Block, rng: np.random.Generator, *, per_area: float, large: float = 5.2
) -> None:
    for _ in range(int(rng.poisson(block.length * block.width / per_area))):
        u = rng.uniform(block.left + 1.0, block.right - 1.0)
        v = rng.uniform(block.top + 1.0, block.bottom - 1.0)
        world.add_spot(u, v, rng.uniform(2.2, large))


def _houses(world: World, block: Block, rng: np.random.Generator) -> None:
    """Two rows of lots, back to back."""
    lot = rng.uniform(16.0, 19.5)
    num_lots = max(int(block.length / lot), 1)
    for k in range(num_lots):
        u = block.left + (k + 0.5) * block.length / num_lots
        for side in (-1.0, 1.0):
            edge = block.top if side < 0 else block.bottom
            _house(world, block, rng, u, edge, -side)
    _scatter_trees(world, block, rng, per_area=75.0, large=4.2)


def _house(
    world: World, block: Block, rng: np.random.Generator, u: float, edge: float, inward: float
) -> None:
    """A house on its lot, seen from the street edge inwards."""
    length, width = rng.uniform(10.5, 13.5), rng.uniform(9.5, 11.5)
    setback = rng.uniform(3.5, 6.0)
    v = edge + inward * (setback + width / 2)
    place = world.grid.footprint(
        u - 1.6, v, length, width, turn=float(rng.choice((0.0, np.pi / 2)))
    )
    shape = str(rng.choice(("gabled", "hipped", "flat"), p=(0.55, 0.28, 0.17)))
    if not raise_building(world, rng, place, shape=shape, eaves=rng.uniform(3.5, 6.0)):
        return
    drive = pick(MATERIALS, rng, weights=world.style.material_weights * PAVING_BIAS)
    side = u + 6.4
    _pave(world, rng, drive, side, edge + inward * 4.0, 3.2, 8.0 + 2 * PAVEMENT)
    world.add_slots(side, edge + inward * 4.5, num_slots=1, step=(0, 0), turn=np.pi / 2)
    if rng.random() < 0.5:
        garage = world.grid.footprint(side, edge + inward * 11.0, 3.4, 6.0)
        raise_building(world, rng, garage, shape="flat", eaves=2.6)
    _garden(world, rng, u, edge + inward * (setback + width), inward, block.width / 2)


def _garden(
    world: World, rng: np.random.Generator, u: float, wall: float, inward: float, depth: float
) -> None:
    """Terrace, beds, and now and then a pool behind a house."""
    terrace = pick(MATERIALS[3:], rng)
    _pave(world, rng, terrace, u - 2.0, wall + inward * 1.8, rng.uniform(4, 7), 3.4)
    if depth > 21.0 and rng.random() < 0.3:
        place_pool(world, rng, u + rng.uniform(-3, 2), wall + inward * 7.0)
    if rng.random() < 0.4:
        bed = world.grid.footprint(u + 4.5, wall + inward * rng.uniform(2, 6), 3.0, 2.4)
        if world.has_room(bed):
            world.canvas.paint_box(rng, bed, pick(CROPS, rng), label=LOW_VEGETATION, grain=0.12)


def _flats(world: World, block: Block, rng: np.random.Generator) -> None:
    """Long houses in parallel, a row of bays in front of each."""
    width, gap = rng.uniform(12.0, 15.0), rng.uniform(14.0, 17.0)
    shape = str(rng.choice(("flat", "hipped", "gabled"), p=(0.6, 0.25, 0.15)))
    eaves = rng.uniform(8.0, 14.0)
    middle = block.middle[0]
    ground = pick(MATERIALS[:6], rng)
    v = block.top + 3.0 + width / 2
    while v + width / 2 < block.bottom:
        length = block.length * rng.uniform(0.65, 0.85)
        shift = rng.uniform(-0.08, 0.08) * block.length
        place = world.grid.footprint(middle + shift, v, length, width)
        raise_building(world, rng, place, shape=shape, eaves=eaves)
        lot_v = v + width / 2 + 5.0
        if lot_v + 4.0 < block.bottom:
            _pave(world, rng, ground, middle, lot_v, block.length + 2 * PAVEMENT, 7.4)
            _row_of_bays(world, rng, block, lot_v + 1.2, margin=8.0)
        v += width + gap
    _scatter_trees(world, block, rng, per_area=70.0)


def _row_of_bays(
    world: World, rng: np.random.Generator, block: Block, v: float, *, margin: float
) -> None:
    """A row of marked bays along u, with a slot in each."""
    num_bays = int((block.length - 2 * margin) / BAY_WIDTH)
    start = block.left + margin + BAY_WIDTH / 2
    for k in range(num_bays + 1):
        u = start + (k - 0.5) * BAY_WIDTH
        line = world.grid.footprint(u, v, 0.24, BAY_LENGTH)
        if world.is_paved(line):
            world.canvas.paint_box(rng, line, CHALK * np.float32(0.92), label=IMPERVIOUS)
    world.add_slots(start, v, num_slots=num_bays, step=(BAY_WIDTH, 0.0), turn=np.pi / 2)


def _parking(world: World, block: Block, rng: np.random.Generator) -> None:
    """Rows of bays, sometimes beside a shop, with trees on islands."""
    bottom = block.bottom
    if block.width > 38.0 and rng.random() < 0.5:
        depth = rng.uniform(13.0, 17.0)
        place = world.grid.footprint(
            block.middle[0], block.bottom - depth / 2 - 1, block.length * 0.75, depth
        )
        raise_building(world, rng, place, shape="flat", eaves=rng.uniform(5, 7))
        bottom -= depth + 4.0
    v = block.top + BAY_LENGTH / 2 + 0.5
    while v + BAY_LENGTH / 2 < bottom:
        _row_of_bays(world, rng, block, v, margin=5.0)
        twin = v + BAY_LENGTH
        if twin + BAY_LENGTH / 2 < bottom:
            _row_of_bays(world, rng, block, twin, margin=5.0)
        for u in (block.left + 2.6, block.right - 2.6):
            _island(world, rng, u, v + BAY_LENGTH / 2)
        v += 2 * BAY_LENGTH + AISLE


def _island(world: World, rng: np.random.Generator, u: float, v: float) -> None:
    place = world.grid.footprint(u, v, 3.4, 8.0)
    if world.is_paved(place):
        green = pick(world.style.greens, rng)
        world.canvas.paint_box(rng, place, green, label=LOW_VEGETATION)
        world.add_spot(u, v, rng.uniform(2.0, 3.0))


def _industry(world: World, block: Block, rng: np.random.Generator) -> None:
    """One or two halls on a paved yard, bays in front, containers behind."""
    num_halls = int(rng.integers(1, 3))
    share = block.length / num_halls
    for k in range(num_halls):
        u = block.left + (k + 0.5) * share
        width = (block.width - 15.0) * rng.uniform(0.8, 1.0)
        place = world.grid.footprint(u, block.top + 4.0 + width / 2, share * 0.78, max(width, 8.0))
        shape = str(rng.choice(("flat", "gabled"), p=(0.75, 0.25)))
        raise_building(world, rng, place, shape=shape, eaves=rng.uniform(6.0, 10.0))
    _row_of_bays(world, rng, block, block.bottom - BAY_LENGTH / 2 - 1.0, margin=12.0)
    for u in np.arange(block.left + 2.5, block.right - 2.0, 3.4):
        if rng.random() < 0.25:
            place_container(world, rng, float(u), block.bottom - 11.0, turn=np.pi / 2)


def _park(world: World, block: Block, rng: np.random.Generator) -> None:
    """Paths, a sports court, and many trees."""
    gravel = pick(MATERIALS[4:], rng)
    u, v = block.middle
    _pave(world, rng, gravel, u, v + rng.uniform(-6, 6), block.length + 2 * PAVEMENT, 2.6)
    _pave(world, rng, gravel, u + rng.uniform(-9, 9), v, 2.6, block.width + 2 * PAVEMENT)
    if rng.random() < 0.7:
        place_court(world, rng, u - block.length * 0.26, v - block.width * 0.24)
    _scatter_trees(world, block, rng, per_area=45.0)


def _wood(world: World, block: Block, rng: np.random.Generator) -> None:
    """A closed stand of trees with a ragged edge."""
    spacing = rng.uniform(3.6, 4.6)
    crown = rng.uniform(2.2, 3.2)
    for u in np.arange(block.left, block.right + 2.0, spacing):
        for v in np.arange(block.top, block.bottom + 2.0, spacing):
            shift = rng.normal(0.0, 0.9, 2)
            radius = crown * rng.uniform(0.85, 1.6)
            world.add_spot(float(u + shift[0]), float(v + shift[1]), radius, is_wood=True)


def _field(world: World, block: Block, rng: np.random.Generator) -> None:
    """A few trees along the edges of a field."""
    for _ in range(int(rng.poisson(block.length / 9.0))):
        edge = block.top if rng.random() < 0.5 else block.bottom
        u = rng.uniform(block.left, block.right)
        world.add_spot(u, edge + rng.normal(0.0, 1.0), rng.uniform(2.4, 4.5))


def _site(world: World, block: Block, rng: np.random.Generator) -> None:
    """Containers and heaps on churned soil."""
    for _ in range(int(rng.integers(8, 15))):
        u = rng.uniform(block.left + 5, max(block.right - 5, block.left + 6))
        v = rng.uniform(block.top + 5, max(block.bottom - 5, block.top + 6))
        if rng.random() < 0.5:
            place_heap(world, rng, u, v)
        else:
            for k in range(int(rng.integers(1, 5))):
                place_container(world, rng, u, v + 2.7 * k, turn=0.0)


def _water(world: World, block: Block, rng: np.random.Generator) -> None:
    """Trees on the banks of a pond."""
    _scatter_trees(world, block, rng, per_area=80.0)


FILLERS: dict[Use, Callable[[World, Block, np.random.Generator], None]] = {
    Use.HOUSES: _houses,
    Use.FLATS: _flats,
    Use.INDUSTRY: _industry,
    Use.PARKING: _parking,
    Use.PARK: _park,
    Use.WOOD: _wood,
    Use.FIELD: _field,
    Use.SITE: _site,
    Use.WATER: _water,
}
