"""Paint the ground of blocks: lawns, crops, paving, bare soil, and open water.

Letters: H W height and width of the scene, h w those of a block's bounding box.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# scipy names its functions in a way that type checkers cannot follow.
from scipy.ndimage import find_objects  # type: ignore[attr-defined]

from cvmh.datasets.synthetic.canvas import (
    CLUTTER,
    IMPERVIOUS,
    LOW_VEGETATION,
    BoolArray,
    FloatArray,
    cut,
    tint,
)
from cvmh.datasets.synthetic.layout import Layout
from cvmh.datasets.synthetic.palette import MATERIALS, PAVING_BIAS, SOILS, WATERS, pick
from cvmh.datasets.synthetic.style import Use
from cvmh.datasets.synthetic.world import World


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A piece of ground: where it lies, and its grid coordinates in metres (h, w)."""

    rows: slice
    cols: slice
    mask: BoolArray
    u: FloatArray
    v: FloatArray


def paint_grounds(
    world: World, layout: Layout, uses: NDArray[np.int_], rng: np.random.Generator
) -> None:
    """Paint the ground of every block according to its use."""
    num_v = uses.shape[1]
    number = layout.block_u * num_v + layout.block_v
    for k, box in enumerate(find_objects(number + 1)):
        if box is not None:
            rows, cols = box
            u, v = layout.u[box], layout.v[box]
            plot = Plot(rows=rows, cols=cols, mask=number[box] == k, u=u, v=v)
            GROUNDS[Use(int(uses.flat[k]))](world, plot, rng)


def _paint(world: World, plot: Plot, mask: BoolArray, colour: FloatArray, label: int) -> None:
    np.copyto(world.canvas.colour[:, plot.rows, plot.cols], colour, where=mask)
    world.canvas.labels[plot.rows, plot.cols][mask] = label


def _stripes(plot: Plot, angle: float, spacing: float) -> FloatArray:
    """Return a wave (h, w) between -1 and 1 whose crests run in a direction."""
    across = plot.v * np.cos(angle) - plot.u * np.sin(angle)
    return np.asarray(np.sin(across * (2 * np.pi / spacing)), dtype=np.float32)


def _lawn(world: World, plot: Plot, rng: np.random.Generator) -> None:
    texture = world.canvas.noise.texture(rng, plot.u.shape, grain=0.08, mottle=0.07, drift=0.08)
    mown = rng.choice((0.0, 0.05)) * _stripes(plot, rng.uniform(0, np.pi), rng.uniform(3.0, 5.0))
    colour = pick(world.style.greens, rng) * np.float32(rng.uniform(0.9, 1.1))
    _paint(world, plot, plot.mask, tint(colour, texture * (1 + mown)), LOW_VEGETATION)


def _paved(world: World, plot: Plot, rng: np.random.Generator) -> None:
    texture = world.canvas.noise.texture(rng, plot.u.shape, grain=0.035, mottle=0.03, drift=0.05)
    colour = pick(MATERIALS, rng, weights=world.style.material_weights * PAVING_BIAS)
    _paint(world, plot, plot.mask, tint(colour, texture), IMPERVIOUS)


def _field(world: World, plot: Plot, rng: np.random.Generator) -> None:
    """Paint one to three strips of crops, each with rows of its own colour and spacing."""
    along = plot.v if rng.random() < 0.5 else plot.u
    angle = rng.uniform(0, np.pi)
    borders = np.quantile(along[plot.mask], np.sort(rng.uniform(0.2, 0.8, rng.integers(0, 3))))
    strip = np.digitize(along, borders)
    for k in range(len(borders) + 1):
        texture = world.canvas.noise.texture(rng, plot.u.shape, grain=0.05, mottle=0.03, drift=0.06)
        spacing = rng.uniform(5.0, 10.0) * max(world.canvas.gsd, 0.2)
        rows = _stripes(plot, angle + rng.normal(0.0, 0.05), spacing)
        tramlines = np.abs(_stripes(plot, angle, rng.uniform(24.0, 40.0))) < 0.05
        texture *= 1 + rng.uniform(0.18, 0.28) * rows - np.float32(0.15) * tramlines
        mask = plot.mask & (strip == k)
        _paint(world, plot, mask, tint(pick(world.style.crops, rng), texture), LOW_VEGETATION)


def _site(world: World, plot: Plot, rng: np.random.Generator) -> None:
    """Paint churned soil with the tracks of machines."""
    noise = world.canvas.noise
    texture = noise.texture(rng, plot.u.shape, grain=0.09, mottle=0.17, drift=0.06)
    blend = np.clip(0.5 + cut(noise.mottle, rng, plot.u.shape), 0.0, 1.0)
    soil = pick(SOILS, rng)[:, None, None] * blend + pick(SOILS, rng)[:, None, None] * (1 - blend)
    stones = cut(noise.grain, rng, plot.u.shape)
    texture *= np.where(np.abs(stones) > 1.5, 1.0 + 0.3 * np.sign(stones), 1.0)
    for _ in range(3):
        angle, turn = rng.uniform(0, np.pi), rng.uniform(9.0, 16.0)
        way = plot.v * np.cos(angle) - plot.u * np.sin(angle) + 4.0 * np.sin(plot.u / turn)
        ruts = np.abs(np.mod(way, 23.0) - 11.0)
        texture *= np.where(np.abs(ruts - 1.0) < 0.35, np.float32(0.86), np.float32(1.0))
    _paint(world, plot, plot.mask, soil * texture, CLUTTER)


def _pond(world: World, plot: Plot, rng: np.random.Generator) -> None:
    """Paint a pond in the middle of a lawn."""
    _lawn(world, plot, rng)
    wave = cut(world.canvas.noise.drift, rng, plot.u.shape)
    reach_u, reach_v = (np.ptp(w[plot.mask]) / 2 for w in (plot.u, plot.v))
    middle_u, middle_v = (float(w[plot.mask].mean()) for w in (plot.u, plot.v))
    a, b = (plot.u - middle_u) / (reach_u + 0.1), (plot.v - middle_v) / (reach_v + 0.1)
    depth = 0.84 - np.sqrt(np.sqrt(a**4 + b**4)) + 0.035 * wave
    paint_water(world, plot, depth * min(reach_u, reach_v), rng)


def paint_water(world: World, plot: Plot, depth: FloatArray, rng: np.random.Generator) -> None:
    """Paint water where the distance (h, w) in metres from the bank is above 0."""
    texture = world.canvas.noise.texture(rng, plot.u.shape, drift=0.05)
    wind = rng.uniform(0, np.pi)
    ripples = 0.14 * _stripes(plot, wind, 2.3) * _stripes(plot, wind + 0.7, 3.1)
    bank = np.where(depth < 1.2, np.float32(1.25), np.float32(1.0))
    colour = tint(pick(WATERS, rng), texture * bank * (1 + ripples))
    _paint(world, plot, plot.mask & (depth > 0), colour, CLUTTER)


def paint_river(world: World, layout: Layout, rng: np.random.Generator) -> None:
    """Paint a meandering river across the scene."""
    shape = world.canvas.shape
    angle, bend = rng.uniform(0, np.pi), rng.uniform(60.0, 110.0)
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    mask = np.ones(shape, dtype=np.bool_)
    plot = Plot(rows=whole[0], cols=whole[1], mask=mask, u=layout.u, v=layout.v)
    along = layout.u * np.cos(angle) + layout.v * np.sin(angle)
    across = layout.v * np.cos(angle) - layout.u * np.sin(angle)
    middle = float(across[shape[0] // 2, shape[1] // 2]) + rng.normal(0.0, 25.0)
    offset = np.abs(across - middle + 9.0 * np.sin(along / bend * 2 + rng.uniform(0, 6.0)))
    wobble = 0.5 * cut(world.canvas.noise.drift, rng, shape)
    depth = np.float32(rng.uniform(4.0, 7.5)) - offset + wobble
    # Paved yards and building sites lie over a culvert.
    mask &= world.canvas.labels == LOW_VEGETATION
    paint_water(world, plot, depth.astype(np.float32), rng)


GROUNDS: dict[Use, Callable[[World, Plot, np.random.Generator], None]] = {
    Use.HOUSES: _lawn,
    Use.FLATS: _lawn,
    Use.INDUSTRY: _paved,
    Use.PARKING: _paved,
    Use.PARK: _lawn,
    Use.WOOD: _lawn,
    Use.FIELD: _field,
    Use.SITE: _site,
    Use.WATER: _pond,
}
