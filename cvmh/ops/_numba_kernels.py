"""The selective scan over a map, forwards and backwards, as two kernels of numba.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.

Both kernels run jobs: one image, one tile of channels, all paths. Paths are walked in chunks of
some steps, padding left out. What a chunk needs is gathered into scratch memory, a column
(chunk, LANES) for each vector of channels, so that loops over the steps of a vector read and write
straight on, with the state in a register. State, decay and sums are float32. README.md derives
the backward pass.
"""

import zlib
from pathlib import Path

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    LOG2_E,
    exp2,
    fill,
    load_float,
    load_int,
    load_vector,
    softplus,
    softplus_slope,
    store_float,
    store_int,
    store_vector,
    sum_lanes,
    take_ticket,
)

LN_2 = 1 / LOG2_E
# What a kernel is told. Names of tensors are addresses, 0 for one that was not given; "B_path" and
# the like are strides in elements, where the sizes do not give them.
PLAN = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("counters", "num_jobs", "scratch", "scratch_size", "chunk", "tile"),
            *("num_channels", "num_paths", "num_states", "num_steps", "length", "rank"),
            *("softplus", "order", "order_image", "gap", "x", "y", "y_image", "y_path"),
            *("dt", "dt_image", "dt_path", "dt_pixel", "dt_rank"),
            *("B", "B_image", "B_path", "B_pixel", "B_state"),
            *("C", "C_image", "C_path", "C_pixel", "C_state"),
            *("A", "D", "gap_dt", "dt_bias", "dt_weight", "states"),
            *("grad_x", "grad_dt", "grad_narrow", "grad_small"),
        )
    ]
)
ENTRY = types.void(types.CPointer(from_dtype(PLAN)))


def count_scratch(chunk: int, tile: int, num_states: int, rank: int) -> int:
    """Return how many floats of scratch memory a thread needs, for either kernel."""
    num_vectors = tile // LANES
    columns = 3 * num_vectors + 7 + 2 * num_states + rank
    scalars = (2 + 2 * num_states + rank) * chunk
    small = 2 * (2 * num_states + 3 + rank) * num_vectors * LANES
    return columns * chunk * LANES + scalars + small


@njit
def _at(address, index):
    """Return the address of an element of 32 bits."""
    return address + 4 * index


@njit
def _set_zero(target, num_vectors):
    zero = fill(np.float32(0))
    for index in range(num_vectors):
        store_vector(target, index * LANES, zero)


@njit
def _gather_pixels(plan, image, path, start, pixels, gaps):
    """Write pixels and gaps of a chunk without its padding, and return how many there are."""
    base = image * plan.order_image + path * plan.num_steps
    count = 0
    for step in range(start, min(start + plan.chunk, plan.num_steps)):
        pixel = load_int(plan.order, base + step)
        if pixel >= 0:
            gap = load_int(plan.gap, base + step) if plan.gap else 0
            store_int(pixels, count, pixel)
            store_float(gaps, count, np.float32(gap))
            count += 1
    return count


@njit
def _gather_narrow(source, pixel_stride, stride, size, pixels, count, chunk, target):
    """Copy (size, count) scalars from a map of few channels."""
    for item in range(size):
        for step in range(count):
            value = load_float(source, load_int(pixels, step) * pixel_stride + item * stride)
            store_float(target, item * chunk + step, value)


@njit
def _gather_rows(source, row_size, width, pixels, count, chunk, target):
    """Copy rows of a map to columns of vectors; lanes beyond the tile become zero."""
    whole, rest = width // LANES, width % LANES
    for step in range(count):
        row = load_int(pixels, step) * row_size
        for index in range(whole):
            value = load_vector(source, row + index * LANES)
            store_vector(target, (index * chunk + step) * LANES, value)
        if rest:
            column = (whole * chunk + step) * LANES
            store_vector(target, column, fill(np.float32(0)))
            for lane in range(rest):
                store_float(target, column + lane, load_float(source, row + whole * LANES + lane))


@njit
def _scatter_rows(source, target, row_size, width, pixels, count, chunk):
    """Add columns of vectors to the rows of a map."""
    whole, rest = width // LANES, width % LANES
    for step in range(count):
        row = load_int(pixels, step) * row_size
        for index in range(whole):
            value = load_vector(source, (index * chunk + step) * LANES)
            place = row + index * LANES
            store_vector(target, place, load_vector(target, place) + value)
        for lane in range(rest):
            value = load_float(source, (whole * chunk + step) * LANES + lane)
            place = row + whole * LANES + lane
            store_float(target, place, load_float(target, place) + value)


@njit
def _load_parameter(source, row_stride, stride, num_rows, width, target, row_size, scale):
    """Copy a tile of a parameter to rows of vectors, zero where it was not given."""
    _set_zero(target, num_rows * row_size // LANES)
    if source:
        for row in range(num_rows):
            for channel in range(width):
                value = load_float(source, row * row_stride + channel * stride)
                store_float(target, row * row_size + channel, np.float32(value * scale))


@njit
def _load_parameters(plan, path, first, width, row_size, target):
    """Load A, D, gap_dt, dt_bias and dt_weight, each after the other; A for powers of two."""
    channel = path * plan.num_channels + first
    A, rate = target, np.float32(LOG2_E)
    one, num_states = np.float32(1), plan.num_states
    A_source = _at(plan.A, channel * num_states)
    _load_parameter(A_source, 1, num_states, num_states, width, A, row_size, rate)
    target = _at(target, num_states * row_size)
    for source in (plan.D, plan.gap_dt, plan.dt_bias):
        if source:
            source = _at(source, channel)
        _load_parameter(source, 0, 1, 1, width, target, row_size, one)
        target = _at(target, row_size)
    if plan.rank:
        weight = _at(plan.dt_weight, path * plan.rank * plan.num_channels + first)
        _load_parameter(weight, plan.num_channels, 1, plan.rank, width, target, row_size, one)


@njit
def _expand_steps(rank, low, chunk, bias, weight, row_size, count, column):
    """Write dt before the softplus: the bias and the low-rank product, or what was gathered."""
    if rank:
        for step in range(count):
            store_vector(column, step * LANES, bias)
        for item in range(rank):
            factor = load_vector(weight, item * row_size)
            for step in range(count):
                term = fill(load_float(low, item * chunk + step)) * factor
                place = step * LANES
                store_vector(column, place, load_vector(column, place) + term)
    else:
        for step in range(count):
            place = step * LANES
            store_vector(column, place, load_vector(column, place) + bias)


@njit
def _gather_chunk(plan, image, path, start, pixels, gaps, low, B, C):
    """Gather all that is the same for all channels, and return the number of steps."""
    chunk, rank, num_states = plan.chunk, plan.rank, plan.num_states
    count = _gather_pixels(plan, image, path, start, pixels, gaps)
    source = _at(plan.dt, image * plan.dt_image + path * plan.dt_path)
    _gather_narrow(source, plan.dt_pixel, plan.dt_rank, rank, pixels, count, chunk, low)
    source = _at(plan.B, image * plan.B_image + path * plan.B_path)
    _gather_narrow(source, plan.B_pixel, plan.B_state, num_states, pixels, count, chunk, B)
    source = _at(plan.C, image * plan.C_image + path * plan.C_path)
    _gather_narrow(source, plan.C_pixel, plan.C_state, num_states, pixels, count, chunk, C)
    return count


@njit
def _run_forward_job(plan, image, tile, scratch):
    chunk, length, rank, num_states = plan.chunk, plan.length, plan.rank, plan.num_states
    first = tile * plan.tile
    width = min(plan.tile, plan.num_channels - first)
    num_vectors = (width + LANES - 1) // LANES
    row_size, column_size = num_vectors * LANES, chunk * LANES
    num_chunks = (plan.num_steps + chunk - 1) // chunk
    tile_size = num_states * row_size

    xs = scratch
    dts = _at(xs, num_vectors * column_size)
    ys = _at(dts, num_vectors * column_size)
    decay_dt = _at(ys, num_vectors * column_size)
    inputs = _at(decay_dt, column_size)
    A = _at(inputs, column_size)
    D = _at(A, tile_size)
    gap_dt = _at(D, row_size)
    bias = _at(gap_dt, row_size)
    weight = _at(bias, row_size)
    state = _at(weight, rank * row_size)
    pixels = _at(state, tile_size)
    gaps = _at(pixels, chunk)
    low = _at(gaps, chunk)
    B = _at(low, rank * chunk)
    C = _at(B, num_states * chunk)

    x = _at(plan.x, image * length * plan.num_channels + first)
    for path in range(plan.num_paths):
        _load_parameters(plan, path, first, width, row_size, A)
        _set_zero(state, num_states * num_vectors)
        y = _at(plan.y, image * plan.y_image + path * plan.y_path + first)
        saved = _states_of(plan, image, path, first, width, num_chunks)
        for number in range(num_chunks):
            if plan.states:
                for index in range(num_states * num_vectors):
                    value = load_vector(state, index * LANES)
                    store_vector(saved, number * tile_size + index * LANES, value)
            start = number * chunk
            count = _gather_chunk(plan, image, path, start, pixels, gaps, low, B, C)
            _gather_rows(x, plan.num_channels, width, pixels, count, chunk, xs)
            if rank == 0:
                dt = _at(plan.dt, image * plan.dt_image + path * plan.dt_path + first)
                _gather_rows(dt, plan.num_channels, width, pixels, count, chunk, dts)
            for index in range(num_vectors):
                lane, column = index * LANES, index * column_size
                dt_column, y_column = _at(dts, column), _at(ys, column)
                _expand_steps(
                    rank,
                    low,
                    chunk,
                    load_vector(bias, lane),
                    _at(weight, lane),
                    row_size,
                    count,
                    dt_column,
                )
                skip, gap_factor = load_vector(D, lane), load_vector(gap_dt, lane)
                for step in range(count):
                    place = step * LANES
                    dt_step = load_vector(dt_column, place)
                    if plan.softplus:
                        dt_step = softplus(dt_step)
                    x_step = load_vector(xs, column + place)
                    gap = fill(load_float(gaps, step))
                    store_vector(decay_dt, place, dt_step + gap * gap_factor)
                    store_vector(inputs, place, dt_step * x_step)
                    store_vector(y_column, place, skip * x_step)
                for item in range(num_states):
                    rate = load_vector(A, item * row_size + lane)
                    h = load_vector(state, item * row_size + lane)
                    for step in range(count):
                        place = step * LANES
                        decay = exp2(load_vector(decay_dt, place) * rate)
                        B_step = fill(load_float(B, item * chunk + step))
                        C_step = fill(load_float(C, item * chunk + step))
                        h = decay * h + load_vector(inputs, place) * B_step
                        out = load_vector(y_column, place) + C_step * h
                        store_vector(y_column, place, out)
                    store_vector(state, item * row_size + lane, h)
            _scatter_rows(ys, y, plan.num_channels, width, pixels, count, chunk)


@njit
def _states_of(plan, image, path, first, width, num_chunks):
    """Return where the states before the chunks of a tile are kept, (num_chunks, N, lanes).

    Tiles before this one are full, so that each of their channels takes one lane.
    """
    lanes = (plan.num_channels + LANES - 1) // LANES * LANES
    row_size = (width + LANES - 1) // LANES * LANES
    per_path = num_chunks * plan.num_states
    start = (image * plan.num_paths * lanes + first * plan.num_paths + path * row_size) * per_path
    return _at(plan.states, start)


@njit
def _run_backward_job(plan, image, tile, num_tiles, scratch):
    chunk, length, rank, num_states = plan.chunk, plan.length, plan.rank, plan.num_states
    first = tile * plan.tile
    width = min(plan.tile, plan.num_channels - first)
    num_vectors = (width + LANES - 1) // LANES
    row_size, column_size = num_vectors * LANES, chunk * LANES
    num_chunks = (plan.num_steps + chunk - 1) // chunk
    tile_size = num_states * row_size
    num_small, narrow = num_states + 3 + rank, rank + 2 * num_states
    num_images = plan.num_jobs // num_tiles

    xs = scratch
    dts = _at(xs, num_vectors * column_size)
    dys = _at(dts, num_vectors * column_size)
    dt = _at(dys, num_vectors * column_size)
    slopes = _at(dt, column_size)
    decay_dt = _at(slopes, column_size)
    decays = _at(decay_dt, column_size)
    histories = _at(decays, column_size)
    grad_input = _at(histories, column_size)
    grad_exponent = _at(grad_input, column_size)
    sums = _at(grad_exponent, column_size)
    A = _at(sums, narrow * column_size)
    D = _at(A, tile_size)
    gap_dt = _at(D, row_size)
    bias = _at(gap_dt, row_size)
    weight = _at(bias, row_size)
    small = _at(weight, rank * row_size)
    adjoint = _at(small, num_small * row_size)
    pixels = _at(adjoint, tile_size)
    gaps = _at(pixels, chunk)
    low = _at(gaps, chunk)
    B = _at(low, rank * chunk)
    C = _at(B, num_states * chunk)
    B_sums = _at(sums, rank * column_size)
    C_sums = _at(B_sums, num_states * column_size)
    # Gradients of A, D, gap_dt, dt_bias and dt_weight, in this order.
    small_D = _at(small, tile_size)
    small_gap = _at(small_D, row_size)
    small_bias = _at(small_gap, row_size)
    small_weight = _at(small_bias, row_size)

    zero = fill(np.float32(0))
    one, ln_2 = fill(np.float32(1)), fill(np.float32(LN_2))
    x = _at(plan.x, image * length * plan.num_channels + first)
    grad_x = _at(plan.grad_x, image * length * plan.num_channels + first)
    for path in range(plan.num_paths):
        _load_parameters(plan, path, first, width, row_size, A)
        _set_zero(small, num_small * num_vectors)
        _set_zero(adjoint, num_states * num_vectors)
        dy = _at(plan.y, image * plan.y_image + path * plan.y_path + first)
        saved = _states_of(plan, image, path, first, width, num_chunks)
        number_path = image * plan.num_paths + path
        grad_narrow = _at(
            plan.grad_narrow,
            ((tile * num_images + image) * plan.num_paths + path) * length * narrow,
        )
        grad_dt = _at(plan.grad_dt, number_path * length * plan.num_channels + first)
        for back in range(num_chunks):
            number = num_chunks - 1 - back
            start = number * chunk
            count = _gather_chunk(plan, image, path, start, pixels, gaps, low, B, C)
            _gather_rows(x, plan.num_channels, width, pixels, count, chunk, xs)
            _gather_rows(dy, plan.num_channels, width, pixels, count, chunk, dys)
            if rank == 0:
                source = _at(plan.dt, image * plan.dt_image + path * plan.dt_path + first)
                _gather_rows(source, plan.num_channels, width, pixels, count, chunk, dts)
            _set_zero(sums, narrow * chunk)
            for index in range(num_vectors):
                lane, column = index * LANES, index * column_size
                x_column, dy_column = _at(xs, column), _at(dys, column)
                dt_column = _at(dts, column)
                _expand_steps(
                    rank,
                    low,
                    chunk,
                    load_vector(bias, lane),
                    _at(weight, lane),
                    row_size,
                    count,
                    dt_column,
                )
                gap_factor = load_vector(gap_dt, lane)
                for step in range(count):
                    place = step * LANES
                    raw = load_vector(dt_column, place)
                    dt_step, slope = raw, one
                    if plan.softplus:
                        dt_step, slope = softplus(raw), softplus_slope(raw)
                    gap = fill(load_float(gaps, step))
                    store_vector(dt, place, dt_step)
                    store_vector(slopes, place, slope)
                    store_vector(decay_dt, place, dt_step + gap * gap_factor)
                    store_vector(grad_input, place, zero)
                    store_vector(grad_exponent, place, zero)

                for item in range(num_states):
                    rate = load_vector(A, item * row_size + lane)
                    h = load_vector(saved, number * tile_size + item * row_size + lane)
                    for step in range(count):
                        place = step * LANES
                        decay = exp2(load_vector(decay_dt, place) * rate)
                        input_step = load_vector(dt, place) * load_vector(x_column, place)
                        store_vector(decays, place, decay)
                        # The state before the step.
                        store_vector(histories, place, h)
                        h = decay * h + input_step * fill(load_float(B, item * chunk + step))
                    g = load_vector(adjoint, item * row_size + lane)
                    grad_A = zero
                    for later in range(count):
                        step = count - 1 - later
                        place = step * LANES
                        scalar = item * chunk + step
                        total = item * column_size + place
                        dy_step = load_vector(dy_column, place)
                        input_step = load_vector(dt, place) * load_vector(x_column, place)
                        g = g + dy_step * fill(load_float(C, scalar))
                        store_vector(C_sums, total, load_vector(C_sums, total) + dy_step * h)
                        store_vector(B_sums, total, load_vector(B_sums, total) + g * input_step)
                        through = load_vector(grad_input, place)
                        through = through + g * fill(load_float(B, scalar))
                        store_vector(grad_input, place, through)
                        g = g * load_vector(decays, place)
                        h = load_vector(histories, place)
                        exponent = g * h
                        grad_A = grad_A + exponent * load_vector(decay_dt, place)
                        exponent = load_vector(grad_exponent, place) + exponent * rate
                        store_vector(grad_exponent, place, exponent)
                    store_vector(adjoint, item * row_size + lane, g)
                    place = item * row_size + lane
                    store_vector(small, place, load_vector(small, place) + grad_A)

                skip = load_vector(D, lane)
                grad_D, grad_gap, grad_bias = zero, zero, zero
                for step in range(count):
                    place = step * LANES
                    x_step, dy_step = load_vector(x_column, place), load_vector(dy_column, place)
                    through = load_vector(grad_input, place)
                    exponent = load_vector(grad_exponent, place) * ln_2
                    grad_gap = grad_gap + exponent * fill(load_float(gaps, step))
                    grad_D = grad_D + dy_step * x_step
                    raw = (exponent + through * x_step) * load_vector(slopes, place)
                    grad_bias = grad_bias + raw
                    store_vector(dt_column, place, raw)
                    value = through * load_vector(dt, place) + skip * dy_step
                    store_vector(x_column, place, value)
                store_vector(small_D, lane, load_vector(small_D, lane) + grad_D)
                store_vector(small_gap, lane, load_vector(small_gap, lane) + grad_gap)
                store_vector(small_bias, lane, load_vector(small_bias, lane) + grad_bias)
                for item in range(rank):
                    factor = load_vector(weight, item * row_size + lane)
                    grad_weight = zero
                    for step in range(count):
                        place = step * LANES
                        raw = load_vector(dt_column, place)
                        total = item * column_size + place
                        grad_weight = grad_weight + raw * fill(load_float(low, item * chunk + step))
                        store_vector(sums, total, load_vector(sums, total) + raw * factor)
                    place = item * row_size + lane
                    value = load_vector(small_weight, place) + grad_weight
                    store_vector(small_weight, place, value)

            _scatter_rows(xs, grad_x, plan.num_channels, width, pixels, count, chunk)
            if rank == 0:
                _scatter_rows(dts, grad_dt, plan.num_channels, width, pixels, count, chunk)
            for step in range(count):
                row = load_int(pixels, step) * narrow
                for item in range(narrow):
                    value = sum_lanes(load_vector(sums, item * column_size + step * LANES))
                    store_float(grad_narrow, row + item, value)
        for item in range(num_small):
            base = (number_path * num_small + item) * plan.num_channels + first
            for channel in range(width):
                value = load_float(small, item * row_size + channel)
                store_float(plan.grad_small, base + channel, value)


def make_forward(stamp):
    """Return the kernel that writes y and, where asked to, the states before all chunks.

    y must be zero; it is added to. The stamp must not be zero.
    """

    def run_forward(plans):
        plan = carray(plans, 1)[0]
        num_tiles = (plan.num_channels + plan.tile - 1) // plan.tile
        scratch = _at(plan.scratch, take_ticket(plan.counters, 0) * plan.scratch_size)
        job = take_ticket(plan.counters, 1)
        while stamp and job < plan.num_jobs:
            _run_forward_job(plan, job // num_tiles, job % num_tiles, scratch)
            job = take_ticket(plan.counters, 1)

    return run_forward


def make_backward(stamp):
    """Return the kernel that writes the gradients of all inputs; y is that of the output.

    All gradients must be zero; they are added to. ``grad_narrow`` is (tiles, B, K, L, R + 2 N), of
    dt, B and C; ``grad_small`` (B, K, N + 3 + R, D), of A, D, gap_dt, dt_bias and dt_weight. The
    stamp must not be zero.
    """

    def run_backward(plans):
        plan = carray(plans, 1)[0]
        num_tiles = (plan.num_channels + plan.tile - 1) // plan.tile
        scratch = _at(plan.scratch, take_ticket(plan.counters, 0) * plan.scratch_size)
        job = take_ticket(plan.counters, 1)
        while stamp and job < plan.num_jobs:
            _run_backward_job(plan, job // num_tiles, job % num_tiles, num_tiles, scratch)
            job = take_ticket(plan.counters, 1)

    return run_backward


def compile_kernel(make):
    """Return a kernel as machine code, from numba's cache if it was compiled before.

    numba compiles anew when the file of a kernel changes, but knows nothing of other files. It
    does look at what a function encloses: there a stamp of all sources keeps versions apart.
    """
    sources = sorted(Path(__file__).parent.glob("_numba*.py"))
    stamp = zlib.crc32(b"".join(path.read_bytes() for path in sources)) or 1
    try:
        return cfunc(ENTRY, cache=True)(make(stamp))
    except RuntimeError:
        # There is no folder to keep a cache in.
        return cfunc(ENTRY)(make(stamp))
