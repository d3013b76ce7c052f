"""Make a synthetic aerial scene from a seed, with the exact label of every pixel.

Letters: H W height and width of the scene. A scene is drawn back to front: ground, streets,
buildings, cars, trees; then the sun casts shadows and the sensor takes the picture.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.synthetic.blocks import fill_block
from cvmh.datasets.synthetic.canvas import BoolArray, Canvas, Noise
from cvmh.datasets.synthetic.cars import CAR_AREA, park_cars
from cvmh.datasets.synthetic.grounds import paint_grounds, paint_river
from cvmh.datasets.synthetic.kerbs import line_streets
from cvmh.datasets.synthetic.land_use import allocate_uses
from cvmh.datasets.synthetic.layout import lay_out, lay_strips
from cvmh.datasets.synthetic.light import expose
from cvmh.datasets.synthetic.street_grid import StreetGrid
from cvmh.datasets.synthetic.streets import paint_streets
from cvmh.datasets.synthetic.style import draw_style
from cvmh.datasets.synthetic.trees import plant_trees
from cvmh.datasets.synthetic.world import World
from cvmh.errors import ConfigError

# What the scene model is made for: below, no car fits; above, memory runs out.
SIDES = (32, 4096)
GSDS = (0.05, 1.0)

# Scenes lie on a lattice of cells (east, north) in UTM zone 32; the largest scene is 4096 m wide.
CELL = 5000.0
CELLS = (120, 300)
LATTICE_CORNER = (200_000.0, 4_900_000.0)
# Coprime to the number of cells, so that neighbouring seeds lie far apart and none coincide.
CELL_STRIDE = 7919


@dataclass(frozen=True, kw_only=True)
class SyntheticScene:
    """A picture and its labels.

    The image is uint8 (3, H, W) in red, green, blue, and 0 in all bands exactly where there is no
    data. Labels are uint8 (H, W) ids of ``cvmh.classes.ISPRS``, 255 exactly where there is no data.
    Validity is bool (H, W), true where there is data. The gsd is the pixel size in metres.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    validity: BoolArray
    gsd: float


class SceneOrigin(NamedTuple):
    """The upper left corner of a scene in metres of EPSG:32632."""

    easting: float
    northing: float


def make_scene(
    seed: int, *, height: int = 1024, width: int = 1024, gsd: float = 0.25
) -> SyntheticScene:
    """Return the synthetic scene of a seed, always the same for the same size and pixel size.

    Args:
        seed: any integer from 0.
        height: pixels, 32 to 4096.
        width: pixels, 32 to 4096.
        gsd: pixel size in metres, 0.05 to 1.

    Raises:
        ConfigError: an argument is out of range.
    """
    _check(seed, height=height, width=width, gsd=gsd)
    streams = np.random.SeedSequence(seed).spawn(8)
    rngs = [np.random.default_rng(stream) for stream in streams]
    style = draw_style(rngs[0])
    validity = _draw_validity(rngs[1], (height, width))
    canvas = Canvas(height, width, gsd=gsd, noise=Noise(rngs[2], gsd=gsd))
    grid = StreetGrid(rngs[3], style, extent=(height * gsd, width * gsd))
    world = World(canvas=canvas, grid=grid, style=style)
    _build(world, validity, rngs[4], rngs[5])
    _populate(world, validity, rngs[6])
    picture = expose(canvas, style.sun, style.sensor, rng=rngs[7])
    image = np.clip(np.rint(picture), 1, 255).astype(np.uint8)
    image[:, ~validity] = 0
    canvas.labels[~validity] = NODATA_ID
    return SyntheticScene(image=image, labels=canvas.labels, validity=validity, gsd=gsd)


def scene_origin(seed: int) -> SceneOrigin:
    """Return a plausible place for the scene of a seed; scenes of different seeds never overlap.

    Raises:
        ConfigError: the seed is negative or beyond the number of places.
    """
    num_cells = CELLS[0] * CELLS[1]
    if not 0 <= seed < num_cells:
        raise ConfigError(f"seed must be 0 to {num_cells - 1} to have a place, got {seed}")
    row, col = divmod(seed * CELL_STRIDE % num_cells, CELLS[0])
    return SceneOrigin(LATTICE_CORNER[0] + col * CELL, LATTICE_CORNER[1] + (row + 1) * CELL)


def _check(seed: int, *, height: int, width: int, gsd: float) -> None:
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, got {seed}")
    for name, value, (least, most) in (
        ("height", height, SIDES),
        ("width", width, SIDES),
        ("gsd", gsd, GSDS),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{name} must be {least} to {most}, got {value}")


def _draw_validity(rng: np.random.Generator, shape: tuple[int, int]) -> BoolArray:
    """Cut one corner off, obliquely, as at the edge of a flight line."""
    reach = np.sort(rng.uniform(0.12, 0.42, 2)) * rng.choice((1.0, 0.8))
    rows = (np.arange(shape[0])[:, None] + 0.5) / shape[0]
    cols = (np.arange(shape[1])[None, :] + 0.5) / shape[1]
    flip_rows, flip_cols, is_steep = rng.random(3) < 0.5
    rows = 1.0 - rows if flip_rows else rows
    cols = 1.0 - cols if flip_cols else cols
    reach_rows, reach_cols = reach if is_steep else reach[::-1]
    return np.asarray(rows / reach_rows + cols / reach_cols > 1.0)


def _build(
    world: World, validity: BoolArray, rng: np.random.Generator, rng_blocks: np.random.Generator
) -> None:
    """Paint grounds and streets, and build on the blocks."""
    canvas, grid = world.canvas, world.grid
    layout = lay_out(grid, canvas.shape, gsd=canvas.gsd)
    uses = allocate_uses(rng, layout.areas(validity, grid), world.style.use_shares)
    paint_grounds(world, layout, uses, rng)
    if world.style.has_river:
        paint_river(world, layout, rng)
    paint_streets(canvas, layout, lay_strips(layout, grid, uses), rng=rng)
    for block, stream in zip(grid.blocks(uses), rng_blocks.spawn(uses.size), strict=False):
        fill_block(world, block, stream)


def _populate(world: World, validity: BoolArray, rng: np.random.Generator) -> None:
    """Add cars and trees, as many as the style wants."""
    line_streets(world, rng)
    num_pixels = int(validity.sum())
    wanted = world.style.car_share * num_pixels * world.canvas.gsd**2 / CAR_AREA
    park_cars(world, rng, num_cars=max(int(wanted), 1))
    plant_trees(world, rng, tree_share=world.style.tree_share)
