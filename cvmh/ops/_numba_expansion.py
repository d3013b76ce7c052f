"""Norm and placing of the pixels that come of each pixel, as a kernel of numba.

Legend: B batch, H W map, C channels, f factor, E channels of another map beside.
"""

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from cvmh.ops._numba_kernels import at
from cvmh.ops._numba_launch import Kernel, in_vectors
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    fill,
    load_float,
    load_lanes,
    load_vector,
    store_lanes,
    sum_lanes,
    take_ticket,
)


def run_expansion(
    x_BHWffC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, beside_BHWE: Tensor | None
) -> Tensor:
    """Return normed pixels in place, with another map's channels behind theirs, all float32.

    Maps are contiguous; the result is (B, f H, f W, C + E).
    """
    num_images, height, width, factor, _, channels = x_BHWffC.shape
    num_beside = 0 if beside_BHWE is None else beside_BHWE.shape[-1]
    shape = num_images, factor * height, factor * width, channels + num_beside
    y = x_BHWffC.new_empty(shape)
    # The last says which lanes are channels.
    rows = in_vectors(torch.stack([weight_C, bias_C, torch.ones_like(weight_C)]))
    eps_1 = x_BHWffC.new_tensor([eps])
    KERNEL.run(
        num_images * height,
        x=x_BHWffC.data_ptr(),
        y=y.data_ptr(),
        weight=rows[0].data_ptr(),
        bias=rows[1].data_ptr(),
        is_channel=rows[2].data_ptr(),
        beside=0 if beside_BHWE is None else beside_BHWE.data_ptr(),
        eps=eps_1.data_ptr(),
        num_rows=num_images * height,
        width=width,
        factor=factor,
        num_channels=channels,
        num_beside=num_beside,
    )
    return y


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        row = take_ticket(plan.counter, 0)
        while stamp and row < plan.num_rows:
            _expand_row(plan, row)
            row = take_ticket(plan.counter, 0)

    return run


KERNEL = Kernel(
    _make,
    *("x", "y", "weight", "bias", "is_channel", "beside", "eps"),
    *("num_rows", "width", "factor", "num_channels", "num_beside"),
)


@njit
def _expand_row(plan, row):
    """Put the pixels that come of a row of pixels in place."""
    factor, size = plan.factor, plan.num_channels + plan.num_beside
    x = at(plan.x, row * plan.width * factor**2 * plan.num_channels)
    for column in range(plan.width):
        for down in range(factor):
            place = ((row * factor + down) * plan.width + column) * factor
            for _ in range(factor):
                _normalise(plan, x, at(plan.y, place * size))
                if plan.num_beside:
                    source = at(plan.beside, place * plan.num_beside)
                    target = at(plan.y, place * size + plan.num_channels)
                    _copy(source, target, plan.num_beside)
                x = at(x, plan.num_channels)
                place += 1


@njit(forceinline=True)
def _normalise(plan, x, y):
    """Norm the channels of a pixel."""
    num_channels = plan.num_channels
    share = np.float32(1) / np.float32(num_channels)
    total = fill(np.float32(0))
    for lane in range(0, num_channels, LANES):
        total = total + load_lanes(x, lane, num_channels - lane)
    minus_mean = fill(-sum_lanes(total) * share)
    squares = fill(np.float32(0))
    for lane in range(0, num_channels, LANES):
        centred = load_lanes(x, lane, num_channels - lane) + minus_mean
        centred = centred * load_vector(plan.is_channel, lane)
        squares = squares + centred * centred
    eps = load_float(plan.eps, 0)
    scale = fill(np.float32(1) / np.sqrt(sum_lanes(squares) * share + eps))
    for lane in range(0, num_channels, LANES):
        centred = load_lanes(x, lane, num_channels - lane) + minus_mean
        value = centred * scale * load_vector(plan.weight, lane) + load_vector(plan.bias, lane)
        store_lanes(y, lane, num_channels - lane, value)


@njit(forceinline=True)
def _copy(source, target, count):
    for lane in range(0, count, LANES):
        store_lanes(target, lane, count - lane, load_lanes(source, lane, count - lane))
