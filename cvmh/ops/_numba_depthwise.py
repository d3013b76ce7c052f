"""The depth-wise convolution of rows that know their neighbours, as a kernel of numba.

Legend: T rows, D channels, J neighbours of a row.
"""

import numpy as np
from numba import carray, njit
from torch import Tensor

from cvmh.ops._numba_kernels import at
from cvmh.ops._numba_launch import Kernel, in_vectors
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    fill,
    load_int,
    load_lanes,
    load_vector,
    store_lanes,
    take_ticket,
)

# Rows that a thread takes at a time, and neighbours whose weights are held at a time.
BLOCK, TOGETHER = 128, 9


def run_depthwise(
    x_TD: Tensor, neighbours_TJ: Tensor, weight_JD: Tensor, bias_D: Tensor | None
) -> Tensor:
    """Return the convolution of float32 rows; neighbours are int32, negative where is none.

    The channels of a row lie side by side, rows as far apart as they are; the table is contiguous.
    """
    num_rows, num_neighbours = neighbours_TJ.shape
    weight = in_vectors(weight_JD)
    bias = in_vectors(x_TD.new_zeros(x_TD.shape[1]) if bias_D is None else bias_D)
    y_TD = x_TD.new_empty(num_rows, x_TD.shape[1])
    KERNEL.run(
        -(-num_rows // BLOCK),
        x=x_TD.data_ptr(),
        y=y_TD.data_ptr(),
        neighbours=neighbours_TJ.data_ptr(),
        weight=weight.data_ptr(),
        bias=bias.data_ptr(),
        num_rows=num_rows,
        num_channels=x_TD.shape[1],
        num_neighbours=num_neighbours,
        padded=weight.shape[1],
        stride=x_TD.stride(0),
    )
    return y_TD


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        first = take_ticket(plan.counter, 0) * BLOCK
        while stamp and first < plan.num_rows:
            _convolve(plan, first, min(first + BLOCK, plan.num_rows))
            first = take_ticket(plan.counter, 0) * BLOCK

    return run


KERNEL = Kernel(
    _make,
    *("x", "y", "neighbours", "weight", "bias"),
    *("num_rows", "num_channels", "num_neighbours", "padded", "stride"),
)


@njit
def _convolve(plan, first, end):
    """Convolve some rows: for a vector of channels, some neighbours of all rows after others."""
    for lane in range(0, plan.num_channels, LANES):
        rest = plan.num_channels - lane
        number = 0
        while number + TOGETHER <= plan.num_neighbours:
            _add_nine(plan, first, end, lane, rest, number)
            number += TOGETHER
        while number < plan.num_neighbours or number == 0:
            _add_one(plan, first, end, lane, rest, number)
            number += 1


@njit
def _add_nine(plan, first, end, lane, rest, number):
    """Add nine neighbours, whose weights stay in registers; the first nine to the bias."""
    weight = at(plan.weight, number * plan.padded + lane)
    w0, w1 = load_vector(weight, 0), load_vector(weight, plan.padded)
    w2, w3 = load_vector(weight, 2 * plan.padded), load_vector(weight, 3 * plan.padded)
    w4, w5 = load_vector(weight, 4 * plan.padded), load_vector(weight, 5 * plan.padded)
    w6, w7 = load_vector(weight, 6 * plan.padded), load_vector(weight, 7 * plan.padded)
    w8 = load_vector(weight, 8 * plan.padded)
    bias = load_vector(plan.bias, lane)
    x, y = at(plan.x, lane), at(plan.y, lane)
    for row in range(first, end):
        around = at(plan.neighbours, row * plan.num_neighbours + number)
        place = row * plan.num_channels
        total = bias if number == 0 else load_lanes(y, place, rest)
        total = total + _product(x, around, 0, plan.stride, rest, w0)
        total = total + _product(x, around, 1, plan.stride, rest, w1)
        total = total + _product(x, around, 2, plan.stride, rest, w2)
        total = total + _product(x, around, 3, plan.stride, rest, w3)
        total = total + _product(x, around, 4, plan.stride, rest, w4)
        total = total + _product(x, around, 5, plan.stride, rest, w5)
        total = total + _product(x, around, 6, plan.stride, rest, w6)
        total = total + _product(x, around, 7, plan.stride, rest, w7)
        total = total + _product(x, around, 8, plan.stride, rest, w8)
        store_lanes(y, place, rest, total)


@njit
def _add_one(plan, first, end, lane, rest, number):
    """Add one neighbour of all rows; the first one to the bias."""
    is_any = number < plan.num_neighbours
    weight, bias = plan.weight + 4 * (number * plan.padded), load_vector(plan.bias, lane)
    x, y = at(plan.x, lane), at(plan.y, lane)
    for row in range(first, end):
        place = row * plan.num_channels
        total = bias if number == 0 else load_lanes(y, place, rest)
        if is_any:
            around = at(plan.neighbours, row * plan.num_neighbours + number)
            w = load_vector(weight, lane)
            total = total + _product(x, around, 0, plan.stride, rest, w)
        store_lanes(y, place, rest, total)


@njit(forceinline=True)
def _product(x, around, number, stride, rest, weight):
    """Return the channels of a neighbour times its weights, zero where there is none."""
    other = load_int(around, number)
    if other < 0:
        return fill(np.float32(0))
    return load_lanes(x, other * stride, rest) * weight
