"""The colours of a scene, as (red, green, blue) in 0..255 under full sun.

Classes share colours on purpose: roofs and pavings take theirs from one table, so do grass, crops
and crowns. What tells classes apart is shape, texture and neighbourhood.
"""

import numpy as np

from cvmh.datasets.synthetic.canvas import FloatArray


def _table(*rows: tuple[int, int, int]) -> FloatArray:
    return np.array(rows, dtype=np.float32)


# Roofs and paved ground: anthracite to concrete, then brick, brown, tan, and moss.
MATERIALS = _table(
    (66, 66, 70),
    (86, 86, 90),
    (110, 110, 112),
    (134, 133, 132),
    (156, 154, 149),
    (176, 173, 167),
    (142, 92, 76),
    (112, 78, 68),
    (122, 100, 82),
    (158, 138, 112),
    (98, 104, 82),
)
# How readily a row of MATERIALS becomes a roof, and how readily a paving.
ROOF_BIAS = np.array((1.1, 1.0, 0.9, 0.7, 0.6, 0.7, 1.5, 1.4, 1.2, 0.8, 0.7), dtype=np.float32)
PAVING_BIAS = np.array((0.9, 1.1, 1.2, 1.2, 1.1, 0.9, 0.6, 0.6, 0.7, 0.9, 0.6), dtype=np.float32)
# The rows of MATERIALS that streets are made of.
NUM_ASPHALTS = 5

GREENS = _table(
    (62, 82, 50), (74, 94, 56), (88, 108, 62), (98, 112, 72), (112, 122, 78), (80, 88, 58)
)
CROPS = _table(
    (70, 92, 54),
    (92, 114, 62),
    (118, 128, 76),
    (160, 146, 96),
    (148, 134, 100),
    (122, 100, 80),
    (104, 84, 68),
    (138, 108, 84),
)
SOILS = _table((160, 146, 124), (140, 124, 106), (180, 168, 146), (146, 142, 134), (126, 118, 108))
WATERS = _table((50, 62, 66), (52, 68, 64), (44, 52, 62), (70, 86, 88), (64, 74, 80))
CARS = _table(
    (222, 222, 220),
    (172, 174, 176),
    (196, 198, 200),
    (122, 124, 128),
    (42, 43, 48),
    (146, 52, 48),
    (58, 80, 130),
    (66, 92, 72),
    (166, 150, 122),
)
CONTAINERS = _table(
    (150, 66, 52), (58, 88, 130), (70, 104, 82), (170, 166, 158), (176, 140, 70), (108, 108, 112)
)
COURTS = _table((150, 86, 66), (66, 106, 84), (74, 102, 136))
POOLS = _table((96, 160, 176), (80, 140, 160))
CHALK = np.array((208, 206, 200), dtype=np.float32)


def pick(
    table: FloatArray, rng: np.random.Generator, *, weights: FloatArray | None = None
) -> FloatArray:
    """Return one colour (3,) of a table, slightly varied in brightness and hue."""
    share = None if weights is None else weights / weights.sum()
    row = table[rng.choice(len(table), p=share)]
    varied = row * rng.normal(1.0, 0.1) + rng.normal(0.0, 2.8, 3)
    return np.clip(varied, 12.0, 245.0).astype(np.float32)
