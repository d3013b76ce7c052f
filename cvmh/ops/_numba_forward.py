"""The selective scan over a map, forwards, as a kernel of numba."""

import numpy as np
from numba import njit

from cvmh.ops._numba_kernels import (
    AHEAD,
    at,
    expand_dt,
    gap_before,
    keep_states,
    lay_rows,
    load_decay_dt,
    load_rows,
    pixel_at,
    run_jobs,
    start_walk,
)
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    exp2,
    fill,
    load_float,
    load_int,
    load_lanes,
    load_vector,
    prefetch,
    store_lanes,
    store_vector,
)

# Steps whose dt is made at once: a multiple of 4, and chunks are multiples of it.
BLOCK = 16


def count_forward_scratch(chunk: int, tile: int, num_states: int, rank: int) -> int:
    """Return how many floats of scratch memory a thread needs."""
    return tile * (2 * num_states + 3 + rank + BLOCK)


def make_forward(stamp):
    """Return the kernel that writes y, and the states before all chunks where asked to.

    The stamp must not be zero.
    """

    def run_forward(plans):
        run_jobs(plans, _run_job, stamp)

    return run_forward


@njit
def _run_job(plan, image, tile, scratch):
    for path in range(plan.num_paths):
        walk = start_walk(plan, image, path, tile)
        rows = lay_rows(scratch, walk)
        load_rows(plan, path, tile * plan.tile, walk, rows)
        dts = at(rows.state, walk.num_states * walk.row_size)
        # The first path to come by writes; others that share its map add to it.
        adds = path > 0 and plan.y_path == 0
        if not adds and not _visits_all(walk, plan.length):
            for pixel in range(plan.length):
                for lane in range(0, walk.width, LANES):
                    place, rest = pixel * walk.num_channels + lane, walk.width - lane
                    store_lanes(walk.y, place, rest, fill(np.float32(0)))
            adds = True
        for head in range(0, walk.num_steps, BLOCK):
            if walk.states and head % walk.chunk == 0:
                keep_states(walk, rows, head // walk.chunk)
            tail = min(head + BLOCK, walk.num_steps)
            expand_dt(walk, rows, head, tail, dts, 0)
            for step in range(head, tail):
                pixel = load_int(walk.order, step)
                if pixel >= 0:
                    gap, later = fill(gap_before(walk, step)), pixel_at(walk, step + AHEAD)
                    dt = at(dts, (step - head) * walk.row_size)
                    _take_step(walk, rows, dt, pixel, gap, later, adds)


@njit
def _visits_all(walk, length):
    """Return whether a path comes by all pixels, given that it visits none twice."""
    if walk.num_steps < length:
        return False
    for step in range(walk.num_steps):
        if load_int(walk.order, step) < 0:
            return False
    return True


@njit(forceinline=True)
def _take_step(walk, rows, dts, pixel, gap, later, adds):
    """Take all channels of a tile through one step; call those of a later pixel into the cache."""
    row, ahead = pixel * walk.num_channels, later * walk.num_channels
    B, C = at(walk.B, pixel * walk.B_pixel), at(walk.C, pixel * walk.C_pixel)
    prefetch(walk.B, later * walk.B_pixel)
    prefetch(walk.C, later * walk.C_pixel)
    for lane in range(0, walk.width, LANES):
        rest = walk.width - lane
        prefetch(walk.x, ahead + lane)
        prefetch(walk.y, ahead + lane)
        x, dt = load_lanes(walk.x, row + lane, rest), load_vector(dts, lane)
        decay_dt = load_decay_dt(walk, rows, dt, gap, row, lane)
        dt_x = dt * x
        y = load_vector(rows.D, lane) * x
        if adds:
            y = y + load_lanes(walk.y, row + lane, rest)
        for item in range(walk.num_states):
            place = item * walk.row_size + lane
            decay = exp2(decay_dt * load_vector(rows.A, place))
            h = decay * load_vector(rows.state, place)
            h = h + dt_x * fill(load_float(B, item * walk.B_state))
            store_vector(rows.state, place, h)
            y = y + fill(load_float(C, item * walk.C_state)) * h
        store_lanes(walk.y, row + lane, rest, y)
