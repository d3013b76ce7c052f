"""The gradients of the selective scan over a map, as a kernel of numba.

Chunks of a path go from last to first. In each, the states run once more forwards from the one
that was kept before the chunk, and leave their decays in scratch memory; then the gradients run
backwards. README.md derives the pass.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from cvmh.ops._numba_kernels import (
    AHEAD,
    Rows,
    at,
    expand_dt,
    gap_before,
    lay_rows,
    load_decay_dt,
    load_rows,
    pixel_at,
    restore_states,
    run_jobs,
    set_zero,
    start_walk,
)
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    LOG2_E,
    exp2,
    fill,
    load_float,
    load_int,
    load_lanes,
    load_vector,
    prefetch,
    store_float,
    store_lanes,
    store_vector,
    sum_lanes,
)

LN_2 = 1 / LOG2_E


class Chunk(NamedTuple):
    """Addresses in scratch memory of what the steps of a chunk leave, a row for each step.

    Attributes:
        dt: After the softplus.
        slope: Of the softplus.
        decay: a, N rows for each step.
        decayed: a times the state before the step, N rows for each step.
    """

    dt: int
    slope: int
    decay: int
    decayed: int


class Gradients(NamedTuple):
    """Addresses of gradients.

    Attributes:
        x: At the tile's channels of pixel 0.
        dt: At the tile's channels of pixel 0, unless dt is of low rank.
        decay_dt: At the tile's channels of pixel 0, if there is one.
        rows: Of the parameters of the path, in scratch memory, and of the state from later steps.
        sums: Of one step's dt of low rank, B and C, before their lanes are summed.
    """

    x: int
    dt: int
    decay_dt: int
    rows: Rows
    sums: int


def count_backward_scratch(chunk: int, tile: int, num_states: int, rank: int) -> int:
    """Return how many floats of scratch memory a thread needs."""
    num_rows = 2 * (2 * num_states + 3 + rank) + 2 * (1 + num_states) * chunk
    return num_rows * tile + (rank + 2 * num_states) * LANES


def make_backward(stamp):
    """Return the kernel that writes the gradients of all inputs; y is that of the output.

    All gradients must be zero before. ``grad_narrow`` is (tiles, B, K, L, R + 2 N), of
    dt, B and C; ``grad_small`` (B, K, N + 3 + R, D), of A, D, gap_dt, dt_bias and dt_weight. The
    stamp must not be zero.
    """

    def run_backward(plans):
        run_jobs(plans, _run_job, stamp)

    return run_backward


@njit
def _run_job(plan, image, tile, scratch):
    first, num_images = tile * plan.tile, plan.num_jobs // plan.num_tiles
    for path in range(plan.num_paths):
        walk = start_walk(plan, image, path, tile)
        tile_size = walk.num_states * walk.row_size
        num_small, narrow = walk.num_states + 3 + walk.rank, walk.rank + 2 * walk.num_states
        rows = lay_rows(scratch, walk)
        load_rows(plan, path, first, walk, rows)
        small = lay_rows(at(rows.state, tile_size), walk)
        set_zero(small.A, num_small * walk.row_size + tile_size)
        dt = at(small.state, tile_size)
        slope = at(dt, walk.chunk * walk.row_size)
        decay = at(slope, walk.chunk * walk.row_size)
        chunk = Chunk(dt, slope, decay, at(decay, walk.chunk * tile_size))

        number_path = image * plan.num_paths + path
        by_path = number_path * plan.length * walk.num_channels + first
        gradients = Gradients(
            at(plan.grad_x, image * plan.length * walk.num_channels + first),
            at(plan.grad_dt, by_path),
            at(plan.grad_decay_dt, by_path),
            small,
            at(chunk.decayed, walk.chunk * tile_size),
        )
        number_narrow = (tile * num_images + image) * plan.num_paths + path
        grad_narrow = at(plan.grad_narrow, number_narrow * plan.length * narrow)
        num_chunks = (walk.num_steps + walk.chunk - 1) // walk.chunk
        for number in range(num_chunks - 1, -1, -1):
            head, tail = number * walk.chunk, min((number + 1) * walk.chunk, walk.num_steps)
            restore_states(walk, rows, number)
            expand_dt(walk, rows, head, tail, chunk.dt, chunk.slope)
            for step in range(head, tail):
                pixel = load_int(walk.order, step)
                if pixel >= 0:
                    gap, later = fill(gap_before(walk, step)), pixel_at(walk, step + AHEAD)
                    _run_states(walk, rows, chunk, step - head, pixel, gap, later)
            for step in range(tail - 1, head - 1, -1):
                pixel = load_int(walk.order, step)
                if pixel >= 0:
                    gap, later = fill(gap_before(walk, step)), pixel_at(walk, step - AHEAD)
                    set_zero(gradients.sums, narrow * LANES)
                    _propagate(walk, rows, chunk, gradients, step - head, pixel, gap, later)
                    for item in range(narrow):
                        value = sum_lanes(load_vector(gradients.sums, item * LANES))
                        store_float(grad_narrow, pixel * narrow + item, value)

        for item in range(num_small):
            place = (number_path * num_small + item) * walk.num_channels + first
            for lane in range(0, walk.width, LANES):
                value = load_vector(small.A, item * walk.row_size + lane)
                store_lanes(plan.grad_small, place + lane, walk.width - lane, value)


@njit(forceinline=True)
def _run_states(walk, rows, chunk, step, pixel, gap, later):
    """Take the states through one step of a chunk, and keep what the gradients need."""
    row, ahead = pixel * walk.num_channels, later * walk.num_channels
    B = at(walk.B, pixel * walk.B_pixel)
    prefetch(walk.B, later * walk.B_pixel)
    for lane in range(0, walk.width, LANES):
        prefetch(walk.x, ahead + lane)
        dt = load_vector(chunk.dt, step * walk.row_size + lane)
        decay_dt = load_decay_dt(walk, rows, dt, gap, row, lane)
        dt_x = dt * load_lanes(walk.x, row + lane, walk.width - lane)
        for item in range(walk.num_states):
            place = item * walk.row_size + lane
            kept = (step * walk.num_states + item) * walk.row_size + lane
            decay = exp2(decay_dt * load_vector(rows.A, place))
            decayed = decay * load_vector(rows.state, place)
            store_vector(chunk.decay, kept, decay)
            store_vector(chunk.decayed, kept, decayed)
            h = decayed + dt_x * fill(load_float(B, item * walk.B_state))
            store_vector(rows.state, place, h)


@njit(forceinline=True)
def _propagate(walk, rows, chunk, gradients, step, pixel, gap, later):
    """Take the gradients back through one step of a chunk."""
    row, ahead, small = pixel * walk.num_channels, later * walk.num_channels, gradients.rows
    B, C = at(walk.B, pixel * walk.B_pixel), at(walk.C, pixel * walk.C_pixel)
    low = at(walk.dt, pixel * walk.dt_pixel)
    B_sums = at(gradients.sums, walk.rank * LANES)
    C_sums = at(B_sums, walk.num_states * LANES)
    zero, ln_2 = fill(np.float32(0)), fill(np.float32(LN_2))
    for lane in range(0, walk.width, LANES):
        rest = walk.width - lane
        prefetch(walk.y, ahead + lane)
        prefetch(gradients.x, ahead + lane)
        if walk.rank == 0:
            prefetch(gradients.dt, ahead + lane)
        x, dy = load_lanes(walk.x, row + lane, rest), load_lanes(walk.y, row + lane, rest)
        dt = load_vector(chunk.dt, step * walk.row_size + lane)
        decay_dt = load_decay_dt(walk, rows, dt, gap, row, lane)
        dt_x = dt * x
        through_input, exponents = zero, zero
        for item in range(walk.num_states):
            place, sums = item * walk.row_size + lane, item * LANES
            kept = (step * walk.num_states + item) * walk.row_size + lane
            B_step = fill(load_float(B, item * walk.B_state))
            C_step = fill(load_float(C, item * walk.C_state))
            decayed = load_vector(chunk.decayed, kept)
            g = load_vector(small.state, place) + dy * C_step
            store_vector(small.state, place, g * load_vector(chunk.decay, kept))
            h = decayed + dt_x * B_step
            store_vector(C_sums, sums, load_vector(C_sums, sums) + dy * h)
            store_vector(B_sums, sums, load_vector(B_sums, sums) + g * dt_x)
            through_input = through_input + g * B_step
            exponent = g * decayed
            exponents = exponents + exponent * load_vector(rows.A, place)
            store_vector(small.A, place, load_vector(small.A, place) + exponent * decay_dt)
        # A was scaled for powers of two.
        exponents = exponents * ln_2
        raw = through_input * x
        if walk.decay_dt:
            store_lanes(gradients.decay_dt, row + lane, rest, exponents)
        else:
            raw = raw + exponents
        if walk.softplus:
            raw = raw * load_vector(chunk.slope, step * walk.row_size + lane)
        store_vector(small.bias, lane, load_vector(small.bias, lane) + raw)
        store_vector(small.D, lane, load_vector(small.D, lane) + dy * x)
        if walk.gap:
            value = load_vector(small.gap_dt, lane) + gap * exponents
            store_vector(small.gap_dt, lane, value)
        value = through_input * dt + load_vector(rows.D, lane) * dy
        store_lanes(
            gradients.x, row + lane, rest, load_lanes(gradients.x, row + lane, rest) + value
        )
        if walk.rank == 0:
            store_lanes(gradients.dt, row + lane, rest, raw)
        for item in range(walk.rank):
            place, sums = item * walk.row_size + lane, item * LANES
            factor = fill(load_float(low, item * walk.dt_rank))
            store_vector(small.weight, place, load_vector(small.weight, place) + raw * factor)
            value = load_vector(gradients.sums, sums) + raw * load_vector(rows.weight, place)
            store_vector(gradients.sums, sums, value)
