"""Basis images of the two-dimensional discrete cosine transform (type 2).

Legend: H W height and width, K basis images.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from cvmh.errors import ConfigError

# The (u, v) on a 7 x 7 grid that FcaNet found to work best one by one on ImageNet, best first.
FCANET_TOP32 = (
    *((0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)),
    *((5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)),
    *((4, 6), (6, 3), (3, 3), (5, 3), (5, 5), (2, 1), (6, 1), (5, 2)),
    *((5, 4), (3, 2), (3, 1), (4, 1), (2, 3), (2, 0), (6, 5), (1, 3)),
)
FCANET_TOP16 = FCANET_TOP32[:16]
GRID = 7


def top_frequencies(num: int, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return FcaNet's best ``num`` frequencies (u, v), carried from 7 x 7 to an H x W map.

    They are multiplied by floor(H / 7) and floor(W / 7). On a map smaller than 7 the factor is
    1 and a frequency that the map cannot hold becomes its highest one, so some may repeat.

    Raises:
        ConfigError: If ``num`` is not in 1..32 or the map is empty.
    """
    if not 1 <= num <= len(FCANET_TOP32):
        raise ConfigError(f"num must be between 1 and {len(FCANET_TOP32)} frequencies, got {num}")
    _check_size(height, width)

    def scaled(frequency: int, size: int) -> int:
        return min(frequency * max(size // GRID, 1), size - 1)

    return tuple((scaled(u, height), scaled(v, width)) for u, v in FCANET_TOP32[:num])


def dct_basis(
    frequencies: tuple[tuple[int, int], ...], height: int, width: int, *, orthonormal: bool = True
) -> Tensor:
    """Return the basis images of the given frequencies, float32 (K, H, W), on the CPU.

    Image (u, v) is cos(pi u (h + 1/2) / H) cos(pi v (w + 1/2) / W). The result is cached and
    shared between callers: never write into it.

    Args:
        frequencies: Pairs (u, v), u < H along the rows and v < W along the columns.
        height: Rows of the map.
        width: Columns of the map.
        orthonormal: Scale to unit norm: 1 / sqrt(H W), times sqrt(2) for each of u, v above 0.

    Raises:
        ConfigError: If there is no frequency, or one does not fit the map.
    """
    _check_size(height, width)
    if not frequencies or any(not (0 <= u < height and 0 <= v < width) for u, v in frequencies):
        raise ConfigError(
            f"frequencies must be pairs (u, v) with 0 <= u < {height} and 0 <= v < {width}, "
            f"got {frequencies}"
        )
    if torch.compiler.is_dynamo_compiling():
        # torch.compile looks through no cache.
        return _basis(frequencies, height, width, orthonormal)
    return _cached_basis(frequencies, height, width, orthonormal)


@lru_cache(maxsize=128)
def _cached_basis(
    frequencies: tuple[tuple[int, int], ...], height: int, width: int, orthonormal: bool
) -> Tensor:
    # A cached tensor that was made in inference mode could not be trained with later, one that was
    # made while a graph is traced would have no values.
    with torch.inference_mode(False), _disable_current_modes():
        return _basis(frequencies, height, width, orthonormal)


def _basis(
    frequencies: tuple[tuple[int, int], ...], height: int, width: int, orthonormal: bool
) -> Tensor:
    rows, columns = zip(*frequencies, strict=True)
    along_rows = _cosines(rows, height, orthonormal)
    along_columns = _cosines(columns, width, orthonormal)
    return (along_rows[:, :, None] * along_columns[:, None, :]).float()


def _cosines(frequencies: tuple[int, ...], size: int, orthonormal: bool) -> Tensor:
    """Return the cosines along one axis, float64 (K, size)."""
    frequency = torch.tensor(frequencies, dtype=torch.float64)[:, None]
    centre = torch.arange(size, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi / size * frequency * centre)
    if not orthonormal:
        return waves
    return waves * torch.where(frequency > 0, math.sqrt(2 / size), math.sqrt(1 / size))


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ConfigError(f"height and width must be at least 1, got {height} x {width}")
