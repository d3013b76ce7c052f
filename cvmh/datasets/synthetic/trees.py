"""Plant trees: lumpy crowns with a lit and a dark side.

Letters: h w height and width of a window.
"""

import numpy as np

from cvmh.datasets.synthetic.canvas import (
    LOW_VEGETATION,
    TREE,
    FloatArray,
    Footprint,
    Window,
    cut,
    tint,
)
from cvmh.datasets.synthetic.palette import pick
from cvmh.datasets.synthetic.world import Spot, World


def plant_trees(world: World, rng: np.random.Generator, *, tree_share: float) -> None:
    """Plant all trees of the woods, then others in random order up to a share of the pixels."""
    spots = [world.spots[k] for k in rng.permutation(len(world.spots))]
    for spot in (spot for spot in spots if spot.is_wood):
        _plant(world, rng, spot)
    wanted = tree_share * world.canvas.labels.size - int((world.canvas.labels == TREE).sum())
    for spot in (spot for spot in spots if not spot.is_wood):
        if wanted <= 0:
            break
        wanted -= _plant(world, rng, spot)


def _plant(world: World, rng: np.random.Generator, spot: Spot) -> int:
    """Plant one tree; return how many pixels it covers."""
    size = 2.4 * spot.radius
    place = Footprint(x=spot.x, y=spot.y, angle=0.0, length=size, width=size)
    window = world.canvas.window(place)
    if window is None or not _is_rooted(world, window):
        return 0
    crown = _crown(world, rng, window, spot.radius)
    ground = world.canvas.elevation[window.rows, window.cols]
    mask = (crown > 0) & (crown > ground)
    light = _light(world, rng, crown)
    colour = pick(world.style.greens, rng) * np.float32(rng.uniform(0.85, 1.2))
    world.canvas.paint(window, mask, tint(colour, light), label=TREE, elevation=crown)
    return int(mask.sum())


def _is_rooted(world: World, window: Window) -> bool:
    """Return whether the middle of a window is ground that a tree can stand on."""
    middle = np.hypot(window.along, window.across) < 0.8
    heights = world.canvas.elevation[window.rows, window.cols][middle]
    labels = world.canvas.labels[window.rows, window.cols][middle]
    return labels.size == 0 or bool(
        np.isin(labels, (LOW_VEGETATION, TREE, 0)).all() and (heights[labels != TREE] == 0).all()
    )


def _crown(world: World, rng: np.random.Generator, window: Window, radius: float) -> FloatArray:
    """Return the height of a crown over its window (h, w) in metres, 0 beside it."""
    bearing = np.arctan2(window.across, window.along)
    outline = np.ones(window.shape, dtype=np.float32)
    for waves in (2, 3, 5):
        outline += np.float32(rng.normal(0, 0.055)) * np.cos(waves * bearing + rng.uniform(0, 6.3))
    lumps = cut(world.canvas.noise.mottle, rng, window.shape)
    distance = np.hypot(window.along, window.across) / (radius * outline) + 0.05 * lumps
    dome = np.sqrt(np.clip(1.0 - distance**2, 0.0, None))
    trunk, depth = radius * rng.uniform(0.7, 1.1), radius * rng.uniform(0.8, 1.3)
    height = np.where(distance < 1.0, trunk + depth * dome * (1.0 + 0.16 * lumps), 0.0)
    return height.astype(np.float32)


def _light(world: World, rng: np.random.Generator, crown: FloatArray) -> FloatArray:
    """Return the brightness of a crown (h, w): sunny side, dark side, leaves and gaps."""
    gsd = world.canvas.gsd
    if min(crown.shape) < 2:
        return np.ones_like(crown)
    slope_y, slope_x = (np.clip(np.gradient(crown, gsd, axis=k), -1.4, 1.4) for k in (0, 1))
    leaves = world.canvas.noise.texture(
        rng, (crown.shape[0], crown.shape[1]), grain=0.12, mottle=0.12
    )
    return np.asarray(world.style.sun.shade(slope_x, slope_y) * np.clip(leaves, 0.4, 1.6))
