"""The depth-wise convolution of patches whose rows lie anywhere, as a kernel of numba.

Legend: N patches, P rows along a patch's side with its border, Q of the result, T rows, D channels,
k window.
"""

import numpy as np
from numba import carray, njit
from torch import Tensor

from cvmh.ops._numba_kernels import at
from cvmh.ops._numba_launch import Kernel, in_vectors
from cvmh.ops._numba_patches import FIELDS, run_on_patches
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    fill,
    load_int,
    load_lanes,
    load_vector,
    store_lanes,
    take_ticket,
)

# Pixels that a thread takes at a time, and steps of the window whose weights are held at a time.
BLOCK, TOGETHER = 128, 9


def run_depthwise(
    x_TD: Tensor, around_NPP: Tensor, weight_D1kk: Tensor, bias_D: Tensor | None, stride: int
) -> Tensor:
    """Return the convolution (N, Q, Q, D) of patches, as :func:`run_on_patches` wants them."""
    channels, _, window, _ = weight_D1kk.shape
    packed = in_vectors(weight_D1kk.flatten(1).t())
    return run_on_patches(
        KERNEL,
        *(x_TD, around_NPP, packed, bias_D),
        num_results=channels,
        window=window,
        stride=stride,
        block=BLOCK,
        padded=packed.shape[1],
    )


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        first = take_ticket(plan.counter, 0) * BLOCK
        while stamp and first < plan.num_pixels:
            _convolve(plan, first, min(first + BLOCK, plan.num_pixels))
            first = take_ticket(plan.counter, 0) * BLOCK

    return run


KERNEL = Kernel(_make, *FIELDS, "padded")


@njit
def _convolve(plan, first, end):
    """Convolve some pixels: for a vector of channels, some steps of all pixels after others."""
    for lane in range(0, plan.num_channels, LANES):
        rest = plan.num_channels - lane
        number = 0
        while number + TOGETHER <= plan.num_steps:
            _add_nine(plan, first, end, lane, rest, number)
            number += TOGETHER
        while number < plan.num_steps:
            _add_one(plan, first, end, lane, rest, number)
            number += 1


@njit
def _add_nine(plan, first, end, lane, rest, number):
    """Add nine steps of the window, whose weights stay in registers; the first nine to the bias."""
    weight = at(plan.weight, number * plan.padded + lane)
    w0, w1 = load_vector(weight, 0), load_vector(weight, plan.padded)
    w2, w3 = load_vector(weight, 2 * plan.padded), load_vector(weight, 3 * plan.padded)
    w4, w5 = load_vector(weight, 4 * plan.padded), load_vector(weight, 5 * plan.padded)
    w6, w7 = load_vector(weight, 6 * plan.padded), load_vector(weight, 7 * plan.padded)
    w8 = load_vector(weight, 8 * plan.padded)
    steps = at(plan.steps, number)
    s0, s1, s2 = load_int(steps, 0), load_int(steps, 1), load_int(steps, 2)
    s3, s4, s5 = load_int(steps, 3), load_int(steps, 4), load_int(steps, 5)
    s6, s7, s8 = load_int(steps, 6), load_int(steps, 7), load_int(steps, 8)
    bias = load_vector(plan.bias, lane)
    x, y = at(plan.x, lane), at(plan.y, lane)
    patch, inside = divmod(first, plan.area)
    for pixel in range(first, end):
        around = at(plan.around, patch * plan.patch_size + load_int(plan.corners, inside))
        patch, inside = _next(plan, patch, inside)
        place = pixel * plan.num_channels
        total = bias if number == 0 else load_lanes(y, place, rest)
        total = total + _product(x, around, s0, plan.row, rest, w0)
        total = total + _product(x, around, s1, plan.row, rest, w1)
        total = total + _product(x, around, s2, plan.row, rest, w2)
        total = total + _product(x, around, s3, plan.row, rest, w3)
        total = total + _product(x, around, s4, plan.row, rest, w4)
        total = total + _product(x, around, s5, plan.row, rest, w5)
        total = total + _product(x, around, s6, plan.row, rest, w6)
        total = total + _product(x, around, s7, plan.row, rest, w7)
        total = total + _product(x, around, s8, plan.row, rest, w8)
        store_lanes(y, place, rest, total)


@njit
def _add_one(plan, first, end, lane, rest, number):
    """Add one step of the window of all pixels; the first one to the bias."""
    weight, bias = (
        load_vector(plan.weight, number * plan.padded + lane),
        load_vector(plan.bias, lane),
    )
    step = load_int(plan.steps, number)
    x, y = at(plan.x, lane), at(plan.y, lane)
    patch, inside = divmod(first, plan.area)
    for pixel in range(first, end):
        around = at(plan.around, patch * plan.patch_size + load_int(plan.corners, inside))
        patch, inside = _next(plan, patch, inside)
        place = pixel * plan.num_channels
        total = bias if number == 0 else load_lanes(y, place, rest)
        total = total + _product(x, around, step, plan.row, rest, weight)
        store_lanes(y, place, rest, total)


@njit(forceinline=True)
def _next(plan, patch, inside):
    """Return the patch of the next pixel of the result, and its number in it."""
    is_last = inside + 1 == plan.area
    return (patch + 1, 0) if is_last else (patch, inside + 1)


@njit(forceinline=True)
def _product(x, around, number, stride, rest, weight):
    """Return the channels of a neighbour times its weights, zero where there is none."""
    other = load_int(around, number)
    if other < 0:
        return fill(np.float32(0))
    return load_lanes(x, other * stride, rest) * weight
