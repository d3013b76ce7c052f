"""What the two kernels of numba share: the plan that they are told, their scratch memory, steps.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.

Both kernels run jobs: one image, one tile of channels, all paths. A job walks a path step by step
and, at each pixel, over the vectors of channels of its tile, reading and writing maps where they
lie. State, decay and sums are float32. Rows of parameters and states are kept in scratch memory,
padded to whole vectors.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, config, from_dtype, njit, types

from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    LOG2_E,
    fill,
    load_float,
    load_int,
    load_lanes,
    load_vector,
    prefetch,
    softplus,
    softplus_slope,
    store_vector,
    take_ticket,
)

# Steps ahead of which maps are called into the cache: along a column, no processor foresees them.
AHEAD = 16
# What a kernel is told. Names of tensors are addresses, 0 for one that was not given; "B_path" and
# the like are strides in elements, where the sizes do not give them.
PLAN = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("counters", "num_jobs", "scratch", "scratch_size", "chunk"),
            *("tile", "num_tiles"),
            *("num_channels", "num_paths", "num_states", "num_steps", "length", "rank"),
            *("softplus", "order", "order_image", "gap", "x", "y", "y_image", "y_path"),
            *("dt", "dt_image", "dt_path", "dt_pixel", "dt_rank"),
            *("B", "B_image", "B_path", "B_pixel", "B_state"),
            *("C", "C_image", "C_path", "C_pixel", "C_state"),
            *("A_KND", "D", "gap_dt", "decay_dt", "dt_bias", "dt_weight", "states"),
            *("grad_x", "grad_dt", "grad_decay_dt", "grad_narrow", "grad_small"),
        )
    ]
)
if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")
ENTRY = types.void(types.CPointer(from_dtype(PLAN)))


@njit
def at(address, index):
    """Return the address of an element of 32 bits."""
    return address + 4 * index


@njit
def set_zero(target, num_values):
    """Set whole vectors to zero."""
    zero = fill(np.float32(0))
    for index in range(0, num_values, LANES):
        store_vector(target, index, zero)


class Walk(NamedTuple):
    """A tile of channels along one path of one image: addresses, strides and sizes.

    Attributes:
        x: The tile's channels at pixel 0; so are y, decay_dt, and dt unless it is of low rank.
        order: The first step of the path; so is gap. Both gap and decay_dt are 0 if not given.
        states: The tile's channels of the states before all chunks, (num_chunks, N, lanes).
        lanes: All channels, padded to whole vectors.
        width: Channels of the tile.
        row_size: Channels of the tile, padded to whole vectors.
    """

    x: int
    y: int
    dt: int
    dt_pixel: int
    dt_rank: int
    decay_dt: int
    B: int
    B_pixel: int
    B_state: int
    C: int
    C_pixel: int
    C_state: int
    order: int
    gap: int
    states: int
    lanes: int
    num_channels: int
    num_states: int
    num_steps: int
    rank: int
    softplus: int
    chunk: int
    width: int
    row_size: int


class Rows(NamedTuple):
    """Addresses of rows of ``row_size`` in scratch memory: parameters of a path, and its states."""

    A: int
    D: int
    gap_dt: int
    bias: int
    weight: int
    state: int


@njit
def start_walk(plan, image, path, tile):
    """Return the walk of a tile of channels along a path."""
    num_channels, rank = plan.num_channels, plan.rank
    first = tile * plan.tile
    decay_dt = (image * plan.num_paths + path) * plan.length * num_channels + first
    width = min(plan.tile, num_channels - first)
    row_size = (width + LANES - 1) // LANES * LANES
    lanes = (num_channels + LANES - 1) // LANES * LANES
    num_chunks = (plan.num_steps + plan.chunk - 1) // plan.chunk
    states = (image * plan.num_paths + path) * num_chunks * plan.num_states * lanes + first
    steps = image * plan.order_image + path * plan.num_steps
    return Walk(
        at(plan.x, image * plan.length * num_channels + first),
        at(plan.y, image * plan.y_image + path * plan.y_path + first),
        at(plan.dt, image * plan.dt_image + path * plan.dt_path + (0 if rank else first)),
        plan.dt_pixel,
        plan.dt_rank,
        at(plan.decay_dt, decay_dt) if plan.decay_dt else 0,
        at(plan.B, image * plan.B_image + path * plan.B_path),
        plan.B_pixel,
        plan.B_state,
        at(plan.C, image * plan.C_image + path * plan.C_path),
        plan.C_pixel,
        plan.C_state,
        at(plan.order, steps),
        at(plan.gap, steps) if plan.gap else 0,
        at(plan.states, states) if plan.states else 0,
        lanes,
        num_channels,
        plan.num_states,
        plan.num_steps,
        rank,
        plan.softplus,
        plan.chunk,
        width,
        row_size,
    )


@njit
def lay_rows(scratch, walk):
    """Return where the rows of a walk are kept, one after the other from ``scratch`` on."""
    D = at(scratch, walk.num_states * walk.row_size)
    gap_dt = at(D, walk.row_size)
    bias = at(gap_dt, walk.row_size)
    weight = at(bias, walk.row_size)
    return Rows(scratch, D, gap_dt, bias, weight, at(weight, walk.rank * walk.row_size))


@njit
def load_rows(plan, path, first, walk, rows):
    """Load the parameters of a path, zero where one was not given, and set its states to zero."""
    set_zero(rows.A, (2 * walk.num_states + 3 + walk.rank) * walk.row_size)
    one = np.float32(1)
    # A for powers of two.
    for source, target, num_rows, scale in (
        (plan.A_KND, rows.A, walk.num_states, np.float32(LOG2_E)),
        (plan.D, rows.D, 1, one),
        (plan.gap_dt, rows.gap_dt, 1, one),
        (plan.dt_bias, rows.bias, 1, one),
        (plan.dt_weight, rows.weight, walk.rank, one),
    ):
        for row in range(num_rows if source else 0):
            place = (path * num_rows + row) * walk.num_channels + first
            for lane in range(0, walk.width, LANES):
                value = load_lanes(source, place + lane, walk.width - lane) * fill(scale)
                store_vector(target, row * walk.row_size + lane, value)


@njit
def keep_states(walk, rows, number):
    """Write the states before a chunk."""
    for item in range(walk.num_states):
        kept = (number * walk.num_states + item) * walk.lanes
        for lane in range(0, walk.width, LANES):
            value = load_vector(rows.state, item * walk.row_size + lane)
            store_vector(walk.states, kept + lane, value)


@njit
def restore_states(walk, rows, number):
    """Read the states before a chunk."""
    for item in range(walk.num_states):
        kept = (number * walk.num_states + item) * walk.lanes
        for lane in range(0, walk.width, LANES):
            value = load_vector(walk.states, kept + lane)
            store_vector(rows.state, item * walk.row_size + lane, value)


@njit(forceinline=True)
def gap_before(walk, step):
    """Return how many pixels were leapt over before a step."""
    return np.float32(load_int(walk.gap, step)) if walk.gap else np.float32(0)


@njit(forceinline=True)
def load_decay_dt(walk, rows, dt, gap, row, lane):
    """Return the step G that a vector of states decays by.

    Args:
        dt: After the softplus.
        gap: Pixels leapt over before the step, in all lanes.
        row: The pixel's channels in maps of all channels.
        lane: The first channel of the vector in the tile.
    """
    if walk.decay_dt:
        return load_lanes(walk.decay_dt, row + lane, walk.width - lane)
    if walk.gap:
        return dt + gap * load_vector(rows.gap_dt, lane)
    return dt


@njit(forceinline=True)
def pixel_at(walk, step):
    """Return the pixel of some step that need not exist, to call it into the cache."""
    return max(load_int(walk.order, max(min(step, walk.num_steps - 1), 0)), 0)


@njit(forceinline=True)
def expand_dt(walk, rows, head, tail, target, slopes):
    """Write dt of some steps, a row for each, and the slope of the softplus unless ``slopes`` is 0.

    Four steps share what they load of the weights, and none waits for the softplus of another.
    There must be room for a number of rows that is a multiple of four.
    """
    for step in range(head, tail, 4):
        for later in range(step + AHEAD, step + AHEAD + 4):
            place = pixel_at(walk, later) * walk.dt_pixel
            for lane in range(0, LANES if walk.rank else walk.width, LANES):
                prefetch(walk.dt, place + lane)
        place_0 = pixel_at(walk, step) * walk.dt_pixel
        place_1 = pixel_at(walk, step + 1) * walk.dt_pixel
        place_2 = pixel_at(walk, step + 2) * walk.dt_pixel
        place_3 = pixel_at(walk, step + 3) * walk.dt_pixel
        for lane in range(0, walk.width, LANES):
            dt_0 = dt_1 = dt_2 = dt_3 = load_vector(rows.bias, lane)
            if walk.rank == 0:
                dt, rest = at(walk.dt, lane), walk.width - lane
                dt_0 = dt_0 + load_lanes(dt, place_0, rest)
                dt_1 = dt_1 + load_lanes(dt, place_1, rest)
                dt_2 = dt_2 + load_lanes(dt, place_2, rest)
                dt_3 = dt_3 + load_lanes(dt, place_3, rest)
            for item in range(walk.rank):
                weight = load_vector(rows.weight, item * walk.row_size + lane)
                dt = at(walk.dt, item * walk.dt_rank)
                dt_0 = dt_0 + fill(load_float(dt, place_0)) * weight
                dt_1 = dt_1 + fill(load_float(dt, place_1)) * weight
                dt_2 = dt_2 + fill(load_float(dt, place_2)) * weight
                dt_3 = dt_3 + fill(load_float(dt, place_3)) * weight
            index = (step - head) * walk.row_size + lane
            for value in (dt_0, dt_1, dt_2, dt_3):
                if walk.softplus and slopes:
                    store_vector(slopes, index, softplus_slope(value))
                store_vector(target, index, softplus(value) if walk.softplus else value)
                index += walk.row_size


@njit
def run_jobs(plans, run_job, stamp):
    """Run one job after the other, until no thread has left any.

    Args:
        plans: An array of one plan.
        run_job: Takes the plan, image, tile, and the thread's scratch memory.
        stamp: Not zero.
    """
    plan = carray(plans, 1)[0]
    scratch = at(plan.scratch, take_ticket(plan.counters, 0) * plan.scratch_size)
    job = take_ticket(plan.counters, 1)
    while stamp and job < plan.num_jobs:
        run_job(plan, job // plan.num_tiles, job % plan.num_tiles, scratch)
        job = take_ticket(plan.counters, 1)


def compile_kernel(make: Callable[[int], Any], entry: Any = ENTRY) -> Any:
    """Return a kernel as machine code, from numba's cache if it was compiled before.

    numba compiles anew when the file of a kernel changes, but knows nothing of other files. It
    does look at what a function encloses: there a stamp of all sources keeps versions apart.
    """
    sources = sorted(Path(__file__).parent.glob("_numba*.py"))
    stamp = zlib.crc32(b"".join(path.read_bytes() for path in sources)) or 1
    try:
        return cfunc(entry, cache=True)(make(stamp))
    except RuntimeError:
        # There is no folder to keep a cache in.
        return cfunc(entry)(make(stamp))
