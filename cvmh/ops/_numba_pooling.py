"""Means and extremes of a map under several weights, as a kernel of numba.

Legend: B tiles, L tokens of a tile, C channels, K weights of a token behind their average.
"""

import numpy as np
from numba import carray, njit
from torch import Tensor

from cvmh.ops._numba_kernels import at
from cvmh.ops._numba_launch import Kernel
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    fill,
    higher,
    load_float,
    load_int,
    load_lanes,
    lower,
    store_lanes,
    take_ticket,
)

# Tokens whose sum is rounded on its own; a tile's channels of so many stay in the nearest cache.
BLOCK = 256


def run_pooling(x_BLC: Tensor, weight_BLK: Tensor, is_kept_BL: Tensor | None) -> Tensor:
    """Return means under the first weight, and mean extremes under the others: (3, B, C).

    All are contiguous and float32, which tokens are kept is int32; weights are of all tiles or of
    each.
    """
    num_tiles, num_tokens, num_channels = x_BLC.shape
    num_weights = weight_BLK.shape[2]
    pooled = x_BLC.new_empty(3, num_tiles, num_channels)
    KERNEL.run(
        num_tiles * -(-num_channels // LANES),
        x=x_BLC.data_ptr(),
        weight=weight_BLK.data_ptr(),
        is_kept=0 if is_kept_BL is None else is_kept_BL.data_ptr(),
        pooled=pooled.data_ptr(),
        num_tiles=num_tiles,
        num_tokens=num_tokens,
        num_channels=num_channels,
        num_weights=num_weights,
        weight_tile=num_tokens * num_weights if len(weight_BLK) > 1 else 0,
    )
    return pooled


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        vectors = (plan.num_channels + LANES - 1) // LANES
        job = take_ticket(plan.counter, 0)
        while stamp and job < plan.num_tiles * vectors:
            _pool(plan, job // vectors, job % vectors * LANES)
            job = take_ticket(plan.counter, 0)

    return run


KERNEL = Kernel(
    _make,
    *("x", "weight", "is_kept", "pooled"),
    *("num_tiles", "num_tokens", "num_channels", "num_weights", "weight_tile"),
)


@njit
def _pool(plan, tile, lane):
    """Pool a vector of channels of one tile."""
    is_kept = at(plan.is_kept, tile * plan.num_tokens) if plan.is_kept else 0
    x = at(plan.x, tile * plan.num_tokens * plan.num_channels + lane)
    weight = at(plan.weight, tile * plan.weight_tile)
    rest = plan.num_channels - lane
    num_kept = plan.num_tokens
    if is_kept:
        num_kept = 0
        for token in range(plan.num_tokens):
            num_kept += load_int(is_kept, token)
    mean = high = low = fill(np.float32(0))
    if num_kept:
        mean = _sum(plan, x, weight, is_kept, rest) * fill(np.float32(1) / np.float32(num_kept))
        share = fill(np.float32(1) / np.float32(plan.num_weights - 1))
        number = 1
        while number < plan.num_weights:
            if number + 1 < plan.num_weights:
                highest, lowest = _two_extremes(plan, x, at(weight, number), is_kept, rest)
                number += 2
            else:
                highest, lowest = _extremes(plan, x, at(weight, number), is_kept, rest)
                number += 1
            high, low = high + highest * share, low + lowest * share
    size = plan.num_tiles * plan.num_channels
    target = at(plan.pooled, tile * plan.num_channels + lane)
    store_lanes(target, 0, rest, mean)
    store_lanes(target, size, rest, high)
    store_lanes(target, 2 * size, rest, low)


@njit
def _sum(plan, x, weight, is_kept, rest):
    """Return the sum over kept tokens of what is under a weight, each block summed on its own."""
    total = fill(np.float32(0))
    for first in range(0, plan.num_tokens, BLOCK):
        part = fill(np.float32(0))
        for token in range(first, min(first + BLOCK, plan.num_tokens)):
            if not is_kept or load_int(is_kept, token):
                here = load_lanes(x, token * plan.num_channels, rest)
                part = part + here * fill(load_float(weight, token * plan.num_weights))
        total = total + part
    return total


@njit
def _two_extremes(plan, x, weight, is_kept, rest):
    """Return the sums of the highest, and of the lowest, of kept tokens under two weights."""
    high_0 = high_1 = fill(np.float32(-np.inf))
    low_0 = low_1 = fill(np.float32(np.inf))
    for token in range(plan.num_tokens):
        if not is_kept or load_int(is_kept, token):
            here = load_lanes(x, token * plan.num_channels, rest)
            first = here * fill(load_float(weight, token * plan.num_weights))
            second = here * fill(load_float(weight, token * plan.num_weights + 1))
            high_0, low_0 = higher(high_0, first), lower(low_0, first)
            high_1, low_1 = higher(high_1, second), lower(low_1, second)
    return high_0 + high_1, low_0 + low_1


@njit
def _extremes(plan, x, weight, is_kept, rest):
    """Return the highest, and the lowest, of kept tokens under a weight."""
    high, low = fill(np.float32(-np.inf)), fill(np.float32(np.inf))
    for token in range(plan.num_tokens):
        if not is_kept or load_int(is_kept, token):
            here = load_lanes(x, token * plan.num_channels, rest)
            product = here * fill(load_float(weight, token * plan.num_weights))
            high, low = higher(high, product), lower(low, product)
    return high, low
