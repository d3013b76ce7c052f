"""The depth-wise convolution of rows that know their neighbours, as a kernel of numba.

Legend: T rows, D channels, J neighbours of a row.
"""

from functools import cache

import numpy as np
from numba import carray, from_dtype, njit, types
from torch import Tensor

from cvmh.ops._numba_kernels import at, compile_kernel
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_threads import FUNCTION, Function, count_threads, run_on_threads
from cvmh.ops._numba_vectors import (
    load_int,
    load_lanes,
    load_vector,
    store_lanes,
    take_ticket,
)

# Rows that a thread takes at a time.
BLOCK = 128
PLAN = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("x", "y", "neighbours", "weight", "bias", "counter"),
            *("num_rows", "num_channels", "num_neighbours", "padded"),
        )
    ]
)
ENTRY = types.void(types.CPointer(from_dtype(PLAN)))


def run_depthwise(x_TD: Tensor, neighbours_TJ: Tensor, weight_JD: Tensor, bias_D: Tensor) -> Tensor:
    """Return the convolution of contiguous float32 rows; neighbours are int32, -1 where is none.

    Weight and bias have whole vectors of channels, which may be more than D.
    """
    num_rows, num_neighbours = neighbours_TJ.shape
    y_TD = x_TD.new_empty(num_rows, x_TD.shape[1])
    counter = np.zeros(1, dtype=np.int64)
    values = {
        "x": x_TD.data_ptr(),
        "y": y_TD.data_ptr(),
        "neighbours": neighbours_TJ.data_ptr(),
        "weight": weight_JD.data_ptr(),
        "bias": bias_D.data_ptr(),
        "counter": counter.ctypes.data,
        "num_rows": num_rows,
        "num_channels": x_TD.shape[1],
        "num_neighbours": num_neighbours,
        "padded": weight_JD.shape[1],
    }
    plan = np.array([values[name] for name in PLAN.names or ()], dtype=np.int64)
    num_threads = min(count_threads(), -(-num_rows // BLOCK))
    run_on_threads(_entry(), plan.ctypes.data, max(1, num_threads))
    return y_TD


@cache
def _entry() -> Function:
    machine_code = compile_kernel(_make, ENTRY)
    function = FUNCTION(machine_code.address)
    # A ctypes function does not keep its code alive.
    function.machine_code = machine_code  # type: ignore[attr-defined]
    return function


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        first = take_ticket(plan.counter, 0) * BLOCK
        while stamp and first < plan.num_rows:
            _convolve(plan, first, min(first + BLOCK, plan.num_rows))
            first = take_ticket(plan.counter, 0) * BLOCK

    return run


@njit
def _convolve(plan, first, end):
    """Convolve some rows."""
    for row in range(first, end):
        around = at(plan.neighbours, row * plan.num_neighbours)
        for lane in range(0, plan.num_channels, LANES):
            rest = plan.num_channels - lane
            y = load_vector(plan.bias, lane)
            for number in range(plan.num_neighbours):
                other = load_int(around, number)
                if other >= 0:
                    x = load_lanes(plan.x, other * plan.num_channels + lane, rest)
                    y = y + load_vector(plan.weight, number * plan.padded + lane) * x
            store_lanes(plan.y, row * plan.num_channels + lane, rest, y)
