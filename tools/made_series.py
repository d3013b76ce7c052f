"""Made series of vegetation: what a satellite would see of fields and woods every ten days.

Each region has its own weather. Plants green and fade with the warmth summed since New Year, so
that spring comes early in warm years and late on high ground; farmers sow earlier or later, and
fields change their crop every year. Clouds hide some steps (NaN), and haze lowers others without a
word.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STEPS_A_YEAR = 36
# Name, lowest NDVI, rise, warmth (degree days above 5 degrees) at greening and at fading.
COVERS = (
    ("cereal", 0.20, 0.60, 250, 1100),
    ("rapeseed", 0.25, 0.60, 120, 850),
    ("maize", 0.15, 0.70, 650, 1700),
    ("meadow", 0.35, 0.40, 200, 2100),
    ("wood", 0.45, 0.42, 320, 1950),
    ("built", 0.12, 0.10, 300, 1800),
)
# The order of crops on a field; other covers stay.
ROTATION = (0, 1, 2)
PIXELS_A_REGION = 20


@dataclass(frozen=True)
class Pixels:
    """Series of pixels; all steps of all years.

    ``index`` (pixels, 2, steps) holds NDVI and NDMI, NaN under clouds; ``temperature`` (pixels, 1,
    steps) is in degrees Celsius; ``static`` (pixels, 2) is the elevation in metres and how much
    water the soil keeps, 0..1; ``cover`` (pixels, years) is the place in ``COVERS``.
    """

    index: Array
    temperature: Array
    static: Array
    cover: NDArray[np.int64]


def make_pixels(num_pixels: int, *, years: int, seed: int) -> Pixels:
    """Return the series of pixels in regions of their own; other seeds give other regions."""
    rng = np.random.default_rng(seed)
    steps = years * STEPS_A_YEAR
    region = np.arange(num_pixels) // PIXELS_A_REGION
    elevation = rng.uniform(0, 1200, num_pixels)
    water = rng.uniform(0, 1, num_pixels)
    weather = _weather(rng, region[-1] + 1, steps)
    temperature = weather[region] - 0.006 * elevation[:, None]
    cover = _covers(rng, num_pixels, years)
    ndvi = _greenness(rng, temperature, cover, water)
    # Leaves keep water; heat takes it from soils that keep little.
    heat = np.clip(temperature - 15, 0, None) * (1 - water[:, None])
    ndmi = 0.7 * np.roll(ndvi, 1, axis=1) - 0.2 - 0.015 * heat
    index = np.stack([ndvi, ndmi], axis=1)
    index += rng.normal(0, 0.02, index.shape)
    return Pixels(
        _clouded(rng, index).astype(np.float32),
        temperature[:, None].astype(np.float32),
        np.stack([elevation, water], axis=1).astype(np.float32),
        cover,
    )


def _weather(rng: np.random.Generator, regions: int, steps: int) -> Array:
    """Return temperatures at sea level: a season, and spells that last a month or two."""
    season = 9 - 11 * np.cos(2 * np.pi * (np.arange(steps) - 2) / STEPS_A_YEAR)
    spells = np.zeros((regions, steps))
    draws = rng.normal(0, 1.3, (regions, steps))
    for step in range(1, steps):
        spells[:, step] = 0.85 * spells[:, step - 1] + draws[:, step]
    return season + spells


def _covers(rng: np.random.Generator, num_pixels: int, years: int) -> NDArray[np.int64]:
    first = rng.integers(len(COVERS), size=num_pixels)
    rotated = (first[:, None] + np.arange(years)) % len(ROTATION)
    is_field = (first < len(ROTATION))[:, None]
    return np.where(is_field, rotated, np.repeat(first[:, None], years, axis=1))


def _greenness(
    rng: np.random.Generator, temperature: Array, cover: NDArray[np.int64], water: Array
) -> Array:
    by_year = temperature.reshape(len(temperature), -1, STEPS_A_YEAR)
    warmth = (10 * np.clip(by_year - 5, 0, None)).cumsum(axis=2)
    low, rise, greens, fades = (
        np.array([row[column] for row in COVERS])[cover][..., None] for column in range(1, 5)
    )
    # Sown earlier or later, in degree days.
    warmth = warmth - rng.normal(0, 60, (*cover.shape, 1))
    shape = _sigmoid((warmth - greens) / 60) - _sigmoid((warmth - fades) / 90)
    thirst = 0.7 + 0.3 * water[:, None, None]
    return (low + rise * thirst * shape).reshape(temperature.shape)


def _clouded(rng: np.random.Generator, index: Array) -> Array:
    """Hide steps under clouds, more in winter, and lower some of the others by haze."""
    pixels, _, steps = index.shape
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * np.arange(steps) / STEPS_A_YEAR)
    is_cloudy = rng.random((pixels, 1, steps)) < 0.3 + 0.3 * winter
    haze = rng.uniform(0.05, 0.3, (pixels, 1, steps)) * (rng.random((pixels, 1, steps)) < 0.1)
    return np.where(is_cloudy, np.nan, index - haze)


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))
