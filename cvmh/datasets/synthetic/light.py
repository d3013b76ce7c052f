"""Sun and sensor: shading, cast shadows, haze, blur and noise.

Letters: H W height and width of the scene, h w those of a window.
"""

from dataclasses import dataclass

import numpy as np

# scipy names its functions in a way that type checkers cannot follow.
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]

from cvmh.datasets.synthetic.canvas import Canvas, FloatArray

# What the blue sky leaves of red, green and blue in a cast shadow.
SHADOW_TINT = np.array((0.36, 0.40, 0.48), dtype=np.float32)
# Share of the light on a slope that comes from the sky, not from the sun.
AMBIENT = 0.35


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Where the light comes from: azimuth (radians from x to y) and elevation (radians)."""

    azimuth: float
    elevation: float

    @property
    def direction(self) -> tuple[float, float]:
        """The unit vector (x, y) on the ground that points to the sun."""
        return float(np.cos(self.azimuth)), float(np.sin(self.azimuth))

    def shade(self, slope_x: FloatArray, slope_y: FloatArray) -> FloatArray:
        """Return the brightness (h, w) of a surface against that of level ground."""
        x, y = self.direction
        facing = 1.0 - (slope_x * x + slope_y * y) / np.tan(self.elevation)
        facing = np.clip(facing / np.sqrt(1.0 + slope_x**2 + slope_y**2), 0.0, 1.5)
        return np.asarray(AMBIENT + (1.0 - AMBIENT) * facing, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What camera and air do: gain and haze per band (3,), blur (pixels), noise, uneven light."""

    gain: FloatArray
    haze: FloatArray
    blur: float
    noise: float
    unevenness: float


def cast_shadows(elevation: FloatArray, sun: Sun, *, gsd: float) -> FloatArray:
    """Return how deep each pixel lies in shadow (H, W), 0 lit to 1 dark.

    The height field is moved away from the sun pixel by pixel and sinks on the way; what it still
    overtops lies in its shadow.
    """
    x, y = sun.direction
    drop = gsd * np.tan(sun.elevation)
    steps = int(elevation.max() / drop) + 1
    excess = np.zeros_like(elevation)
    H, W = elevation.shape
    for step in range(1, steps + 1):
        down, right = round(-y * step), round(-x * step)
        if abs(down) >= H or abs(right) >= W:
            break
        target = (_shifted(down, H), _shifted(right, W))
        source = (_shifted(-down, H), _shifted(-right, W))
        shade = elevation[source] - np.float32(step * drop) - elevation[target]
        np.maximum(excess[target], shade, out=excess[target])
    # Less than a hand of height is roughness; the blur stands for the width of the sun's disc.
    dark = (excess > 0.15).astype(np.float32)
    return gaussian_filter(dark, 0.6, output=np.float32)


def expose(canvas: Canvas, sun: Sun, sensor: Sensor, *, rng: np.random.Generator) -> FloatArray:
    """Return the picture (3, H, W) in 0..255 that the sensor takes of a canvas."""
    shadow = cast_shadows(canvas.elevation, sun, gsd=canvas.gsd)
    light = _radiometry(canvas.shape, sensor, rng)
    picture = np.empty_like(canvas.colour)
    for band, colour in enumerate(canvas.colour):
        seen = colour * (1.0 - shadow * (1.0 - SHADOW_TINT[band])) * light
        seen = seen * sensor.gain[band] + sensor.haze[band]
        picture[band] = gaussian_filter(seen, sensor.blur, output=np.float32)
        picture[band] += rng.standard_normal(canvas.shape, dtype=np.float32) * sensor.noise
    return picture


def _shifted(offset: int, size: int) -> slice:
    return slice(max(offset, 0), size + min(offset, 0))


def _radiometry(shape: tuple[int, int], sensor: Sensor, rng: np.random.Generator) -> FloatArray:
    """A tilt across the scene and slow clouds of brightness, around 1."""
    tilt = rng.uniform(-1.0, 1.0, 2) * sensor.unevenness
    rows = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :]
    waves = np.sin(3.0 * rows + rng.uniform(0, 6)) * np.sin(3.0 * cols + rng.uniform(0, 6))
    return np.asarray(1.0 + tilt[0] * rows + tilt[1] * cols + 0.4 * sensor.unevenness * waves)
