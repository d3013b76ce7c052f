"""What a seed decides about a whole scene: its sun, season, streets, land use and sensor."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cvmh.datasets.synthetic.canvas import FloatArray
from cvmh.datasets.synthetic.light import Sensor, Sun
from cvmh.datasets.synthetic.palette import CROPS, GREENS, MATERIALS


class Use(IntEnum):
    """What a street block is used for."""

    HOUSES = 0
    FLATS = 1
    INDUSTRY = 2
    PARKING = 3
    PARK = 4
    WOOD = 5
    FIELD = 6
    SITE = 7
    WATER = 8


# Blocks between which no street runs.
RURAL = (Use.WOOD, Use.FIELD, Use.WATER)

# Share of the ground per use, in the order of Use; a scene mixes two of these rows.
CHARACTERS = np.array(
    (
        (0.52, 0.06, 0.00, 0.06, 0.06, 0.10, 0.12, 0.04, 0.04),
        (0.18, 0.34, 0.10, 0.12, 0.10, 0.08, 0.02, 0.05, 0.03),
        (0.10, 0.08, 0.36, 0.14, 0.02, 0.08, 0.10, 0.08, 0.04),
        (0.26, 0.02, 0.08, 0.05, 0.02, 0.16, 0.34, 0.03, 0.04),
        (0.30, 0.18, 0.02, 0.09, 0.16, 0.12, 0.05, 0.03, 0.07),
    ),
    dtype=np.float32,
)
# Below these shares a scene of a few hundred metres would miss a class.
LEAST = np.array((0.22, 0.04, 0.05, 0.07, 0.0, 0.08, 0.06, 0.055, 0.045), dtype=np.float32)

# Factors on green things per season: spring, summer, dry summer, autumn.
SEASONS = np.array(
    ((0.98, 1.06, 0.92), (0.94, 0.98, 0.96), (1.18, 1.06, 1.04), (1.22, 1.0, 0.86)),
    dtype=np.float32,
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """The character of one scene; lengths in metres, angles in radians."""

    street_angle: float
    bend: float
    bend_length: float
    block_length: float
    block_width: float
    sun: Sun
    sensor: Sensor
    use_shares: FloatArray
    material_weights: FloatArray
    greens: FloatArray
    crops: FloatArray
    car_share: float
    tree_share: float
    has_river: bool


def draw_style(rng: np.random.Generator) -> Style:
    """Draw the character of a scene."""
    rows = CHARACTERS[rng.choice(len(CHARACTERS), 2, replace=False)]
    blend = np.float32(rng.uniform(0.0, 0.4))
    shares = (rows[0] * (1 - blend) + rows[1] * blend) * rng.uniform(0.6, 1.4, len(Use))
    shares = np.maximum(shares, LEAST)
    season = SEASONS[rng.integers(len(SEASONS))] * rng.uniform(0.94, 1.06, 3)
    return Style(
        street_angle=rng.uniform(0.0, np.pi / 2),
        bend=rng.uniform(1.0, 11.0),
        bend_length=rng.uniform(220.0, 420.0),
        block_length=rng.uniform(58.0, 88.0),
        block_width=rng.uniform(44.0, 60.0),
        sun=Sun(
            azimuth=rng.uniform(np.radians(25), np.radians(155)),
            elevation=rng.uniform(np.radians(32), np.radians(56)),
        ),
        sensor=_draw_sensor(rng),
        use_shares=(shares / shares.sum()).astype(np.float32),
        material_weights=rng.dirichlet(np.full(len(MATERIALS), 2.0)).astype(np.float32),
        greens=(GREENS * season).astype(np.float32),
        crops=(CROPS * (0.7 + 0.3 * season)).astype(np.float32),
        car_share=rng.uniform(0.021, 0.028),
        tree_share=rng.uniform(0.12, 0.22),
        has_river=rng.random() < 0.4,
    )


def _draw_sensor(rng: np.random.Generator) -> Sensor:
    warmth = rng.uniform(-0.06, 0.06)
    gain = rng.uniform(0.9, 1.12) * np.array((1 + warmth, 1.0, 1 - warmth))
    haze = rng.uniform(2.0, 16.0) * np.array((0.8, 0.95, 1.2))
    return Sensor(
        gain=gain.astype(np.float32),
        haze=haze.astype(np.float32),
        blur=rng.uniform(0.45, 0.7),
        noise=rng.uniform(1.5, 3.5),
        unevenness=rng.uniform(0.02, 0.09),
    )
