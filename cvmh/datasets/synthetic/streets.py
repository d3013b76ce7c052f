"""Paint streets: roadbeds, pavements, lane markings and zebra crossings.

Letters: H W height and width of the scene.
"""

import numpy as np

from cvmh.datasets.synthetic.canvas import IMPERVIOUS, BoolArray, Canvas, FloatArray
from cvmh.datasets.synthetic.layout import Layout, Strip
from cvmh.datasets.synthetic.palette import CHALK, MATERIALS, NUM_ASPHALTS, pick

# Half width in metres of a painted line; thinner ones would vanish between pixels.
HALF_LINE = 0.13


def paint_streets(
    canvas: Canvas, layout: Layout, strips: tuple[Strip, Strip], *, rng: np.random.Generator
) -> None:
    """Paint all streets of a scene, over whatever lies there."""
    texture = canvas.noise.texture(rng, canvas.shape, grain=0.035, mottle=0.03, drift=0.05)
    pavement = strips[0].pavement | strips[1].pavement
    _fill(canvas, pavement, pick(MATERIALS[2:], rng), texture)
    patched = np.where(canvas.noise.texture(rng, canvas.shape, drift=1.0) > 2.3, 0.9, 1.0)
    for strip in strips:
        _pave(canvas, strip, texture * patched.astype(np.float32), rng)
    _mark(canvas, strips[0], strips[1], layout.v, rng)
    _mark(canvas, strips[1], strips[0], layout.u, rng)


def _fill(canvas: Canvas, mask: BoolArray, colour: FloatArray, texture: FloatArray) -> None:
    canvas.colour[:, mask] = colour[:, None] * texture[mask]
    canvas.labels[mask] = IMPERVIOUS


def _pave(canvas: Canvas, strip: Strip, texture: FloatArray, rng: np.random.Generator) -> None:
    mask = strip.roadbed
    num_lines = int(strip.index.max()) + 1
    colours = np.stack([pick(MATERIALS[:NUM_ASPHALTS], rng) for _ in range(num_lines)])
    # Tyres polish two bands per lane.
    wear = 1.0 + 0.04 * np.cos(2 * np.pi * strip.offset[mask] / 1.7)
    canvas.colour[:, mask] = colours[strip.index[mask]].T * (texture[mask] * wear)
    canvas.labels[mask] = IMPERVIOUS


def _mark(
    canvas: Canvas, strip: Strip, cross: Strip, along: FloatArray, rng: np.random.Generator
) -> None:
    """Paint the markings of one family of streets, away from its crossings with the other."""
    distance = np.abs(strip.offset)
    # On a short piece of ground the other family may not run: then there is no crossing.
    clearance = np.abs(cross.offset) - np.maximum(cross.half_width, 0.0)
    is_open = strip.roadbed & strip.is_built_up & (clearance > 1.0)
    is_main = strip.half_width > 4.6
    dashes = (distance < HALF_LINE) & (np.mod(along, 9.0) < 4.5) & (clearance > 6.0)
    edges = np.abs(distance - strip.half_width + 0.4) < HALF_LINE
    stripes = (clearance < 4.0) & (np.mod(strip.offset, 1.2) < 0.6)
    lines = is_open & is_main & (dashes | edges | (stripes & (cross.half_width > 0)))
    fade = rng.uniform(0.75, 1.0)
    canvas.colour[:, lines] = CHALK[:, None] * np.float32(fade)
