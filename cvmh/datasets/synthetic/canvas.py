"""The picture under construction: colour, label and height of every pixel, painted patch by patch.

Letters: H W height and width of the scene, h w those of a window of it. Ground coordinates are in
metres, x to the right and y downwards, from the upper left corner of the scene.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cvmh.classes import ISPRS

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

IMPERVIOUS, BUILDING, LOW_VEGETATION, TREE, CAR, CLUTTER = (entry.id for entry in ISPRS)

# Side in pixels of the periodic noise fields; a scene cuts its textures out of them.
NOISE_SIDE = 768


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A rectangle on the ground: centre, direction of its length (radians from x to y) and size."""

    x: float
    y: float
    angle: float
    length: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels around a footprint, with their distance in metres along and across it (h, w)."""

    rows: slice
    cols: slice
    along: FloatArray
    across: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """The (height, width) of the window in pixels."""
        return self.along.shape[0], self.along.shape[1]


class Noise:
    """Periodic random fields of mean 0 and spread 1, from which textures of any size are cut."""

    def __init__(self, rng: np.random.Generator, *, gsd: float) -> None:
        self.grain = _smooth_field(rng, sigma=0.6)
        self.mottle = _smooth_field(rng, sigma=0.9 / gsd)
        self.drift = _smooth_field(rng, sigma=6.0 / gsd)

    def texture(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        *,
        grain: float = 0.0,
        mottle: float = 0.0,
        drift: float = 0.0,
    ) -> FloatArray:
        """Return brightness factors around 1 (h, w): pixel grain, metre-wide spots, wide drift."""
        factor = np.ones(shape, dtype=np.float32)
        fields = ((self.grain, grain), (self.mottle, mottle), (self.drift, drift))
        for field, weight in fields:
            if weight:
                factor += np.float32(weight) * cut(field, rng, shape)
        return factor


class Canvas:
    """Colour (3, H, W) in 0..255, labels (H, W) and height above ground (H, W) in metres."""

    def __init__(self, height: int, width: int, *, gsd: float, noise: Noise) -> None:
        self.colour: FloatArray = np.zeros((3, height, width), dtype=np.float32)
        self.labels: NDArray[np.uint8] = np.full((height, width), LOW_VEGETATION, dtype=np.uint8)
        self.elevation: FloatArray = np.zeros((height, width), dtype=np.float32)
        self.gsd = gsd
        self.noise = noise

    @property
    def shape(self) -> tuple[int, int]:
        """The (height, width) of the scene in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def window(self, place: Footprint, *, margin: float = 0.5) -> Window | None:
        """Return the pixels around a footprint, or None when it lies outside the scene."""
        cos, sin = np.cos(place.angle), np.sin(place.angle)
        half_x = (abs(cos) * place.length + abs(sin) * place.width) / 2 + margin
        half_y = (abs(sin) * place.length + abs(cos) * place.width) / 2 + margin
        top, left = int((place.y - half_y) / self.gsd), int((place.x - half_x) / self.gsd)
        bottom = int((place.y + half_y) / self.gsd) + 2
        right = int((place.x + half_x) / self.gsd) + 2
        rows = slice(max(top, 0), min(bottom, self.shape[0]))
        cols = slice(max(left, 0), min(right, self.shape[1]))
        if rows.stop <= rows.start or cols.stop <= cols.start:
            return None
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) * self.gsd
        dx = (np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] + 0.5) * self.gsd
        dy, dx = dy - np.float32(place.y), dx - np.float32(place.x)
        along = (dx * cos + dy * sin).astype(np.float32)
        across = (dy * cos - dx * sin).astype(np.float32)
        return Window(rows=rows, cols=cols, along=along, across=across)

    def paint(
        self,
        window: Window,
        mask: BoolArray,
        colour: FloatArray,
        *,
        label: int | None = None,
        elevation: FloatArray | float | None = None,
    ) -> None:
        """Paint a colour, (3,) or (3, h, w), and what else is given where the mask is true."""
        layer = colour[:, None, None] if colour.ndim == 1 else colour
        np.copyto(self.colour[:, window.rows, window.cols], layer, where=mask)
        if label is not None:
            self.labels[window.rows, window.cols][mask] = label
        if elevation is not None:
            np.copyto(self.elevation[window.rows, window.cols], np.float32(elevation), where=mask)

    def paint_box(
        self,
        rng: np.random.Generator,
        place: Footprint,
        colour: FloatArray,
        *,
        label: int,
        grain: float = 0.05,
        elevation: float | None = None,
    ) -> None:
        """Paint a rectangle in one grainy colour."""
        window = self.window(place)
        if window is None:
            return
        texture = self.noise.texture(rng, window.shape, grain=grain, mottle=grain)
        layer = tint(colour, texture)
        self.paint(window, inside(window, place), layer, label=label, elevation=elevation)


def inside(window: Window, place: Footprint, *, inset: float = 0.0) -> BoolArray:
    """Return the mask (h, w) of a footprint, shrunk by an inset in metres on each side."""
    is_along = np.abs(window.along) <= place.length / 2 - inset
    is_across = np.abs(window.across) <= place.width / 2 - inset
    return np.asarray(is_along & is_across)


def tint(colour: FloatArray, factor: FloatArray) -> FloatArray:
    """Return a colour (3,) times a brightness factor (h, w), as (3, h, w)."""
    return colour[:, None, None] * factor


def cut(field: FloatArray, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Return a piece of a periodic field, from a random place."""
    top, left = rng.integers(0, field.shape[0], 2)
    rows = (top + np.arange(shape[0])) % field.shape[0]
    cols = (left + np.arange(shape[1])) % field.shape[1]
    return field[rows[:, None], cols[None, :]]


def _smooth_field(rng: np.random.Generator, *, sigma: float) -> FloatArray:
    """White noise under a Gaussian of sigma pixels, with some of the finer scales left in."""
    spectrum = fft.rfft2(rng.standard_normal((NOISE_SIDE, NOISE_SIDE)).astype(np.float32))
    rows, cols = fft.fftfreq(NOISE_SIDE)[:, None], fft.rfftfreq(NOISE_SIDE)[None, :]
    squared = rows**2 + cols**2
    octaves = ((1.0, sigma), (0.4, sigma / 2), (0.2, sigma / 4))
    gain = sum(w * s * np.exp(-2 * (np.pi * s) ** 2 * squared) for w, s in octaves)
    field = fft.irfft2(spectrum * gain, s=(NOISE_SIDE, NOISE_SIDE))
    field -= field.mean()
    return np.asarray(field / field.std(), dtype=np.float32)
