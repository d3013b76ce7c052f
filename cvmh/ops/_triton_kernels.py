"""The kernels of the triton backend: three phases, that the forward and the backward share.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
README.md describes the phases. A program is one warp and walks one chunk of BLOCK_T steps for
BLOCK_D channels, one channel to a lane, states in a tuple of vectors: no lane ever needs what
another has, but for the sums over channels of the backward. A group is GROUP states.
"""

import triton
import triton.language as tl

from cvmh.ops._triton_steps import (
    find_pixel,
    find_slot,
    load_row,
    load_states,
    load_step,
    load_step_parameters,
    load_weights,
    store_states,
    take_part,
)


@triton.jit
def scan_local_kernel(
    values,
    weights,
    dt,
    steps,
    paths,
    sizes,
    A_ptr,
    states_ptr,
    sums_ptr,
    N: tl.constexpr,
    RANK: tl.constexpr,
    SIDES: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_GAP: tl.constexpr,
    ADJOINT: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    GROUP: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Write what each chunk alone ends with, and the sum of its G. All of it float32.

    Forward, of x and B: h = exp(A G) h + dt B x, first step to last. ADJOINT, of dy and C:
    q = exp(A G) (q + C dy), last step to first. ``states`` is (B, K, chunks, N, D), ``sums``
    (B, K, chunks, D).
    """
    tile, rest = take_part(tl.program_id(0), tl.cdiv(sizes.num_channels, BLOCK_D))
    group, rest = take_part(rest, (N + GROUP - 1) // GROUP)
    chunk, rest = take_part(rest, sizes.num_chunks)
    slot, rest = take_part(rest, sizes.num_paths)
    image = rest.to(tl.int64)
    path, row, is_reversed = find_slot(paths, slot, SIDES)

    off_d = tile * BLOCK_D + tl.arange(0, BLOCK_D)
    first = group * GROUP
    parameters = load_step_parameters(steps, sizes, path, off_d, RANK)
    A = load_states(
        A_ptr, path * N * sizes.num_channels, sizes.num_channels, first, off_d, N, GROUP
    )
    h = ()
    for _ in tl.static_range(GROUP):
        h = h + (tl.zeros([BLOCK_D], tl.float32),)
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, BLOCK_T, UNROLL):
        for i in tl.static_range(UNROLL):
            place = chunk * BLOCK_T + start + i
            if ADJOINT:
                place = chunk * BLOCK_T + BLOCK_T - 1 - start - i
            pixel, gap = find_pixel(
                paths, sizes, image, path, row, is_reversed, place, BLOCK_T, HAS_GAP
            )
            mask = (off_d < sizes.num_channels) & (off_d * 0 + pixel >= 0)
            value = load_row(values, image, path, pixel, off_d, mask)
            weight = load_weights(weights, image, path, pixel, first, N, GROUP)
            step, decay_dt, _slope = load_step(
                dt, image, path, pixel, gap, parameters, off_d, mask, RANK, SOFTPLUS
            )
            total += decay_dt
            new = ()
            for n in tl.static_range(GROUP):
                decay = tl.exp2(decay_dt * A[n])
                if ADJOINT:
                    new = new + (decay * (h[n] + value * weight[n]),)
                else:
                    new = new + (decay * h[n] + step * value * weight[n],)
            h = new
    number = (image * sizes.num_paths + path) * sizes.num_chunks + chunk
    off = number * N * sizes.num_channels
    store_states(h, states_ptr, off, sizes.num_channels, first, off_d, N, GROUP)
    # Every group has the same sum.
    mask = (off_d < sizes.num_channels) & (off_d * 0 + group == 0)
    tl.store(sums_ptr + number * sizes.num_channels + off_d, total, mask=mask)


@triton.jit
def scan_pass_kernel(
    sizes,
    A_ptr,
    states_ptr,
    sums_ptr,
    num_states,
    ADJOINT: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Replace what each chunk alone ends with by what it starts with: h = exp(A sum G) h + end.

    ADJOINT goes from the last chunk to the first. One program for a path, a state and BLOCK_D
    channels; float32.
    """
    tile, rest = take_part(tl.program_id(0), tl.cdiv(sizes.num_channels, BLOCK_D))
    n, rest = take_part(rest, num_states)
    number = rest.to(tl.int64)
    off_d = tile * BLOCK_D + tl.arange(0, BLOCK_D)
    in_tile = off_d < sizes.num_channels
    off_A = (number % sizes.num_paths * num_states + n) * sizes.num_channels
    A = tl.load(A_ptr + off_A + off_d, mask=in_tile, other=0.0)
    h = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, sizes.num_chunks, UNROLL):
        # All loads before any store, so that they may be in flight at once.
        ends, totals = (), ()
        for i in tl.static_range(UNROLL):
            chunk, mask = _find_chunk(start + i, sizes.num_chunks, in_tile, off_d, ADJOINT)
            off = (number * sizes.num_chunks + chunk) * sizes.num_channels
            state_ptrs = states_ptr + off * num_states + n * sizes.num_channels + off_d
            ends = ends + (tl.load(state_ptrs, mask=mask, other=0.0),)
            totals = totals + (tl.load(sums_ptr + off + off_d, mask=mask, other=0.0),)
        for i in tl.static_range(UNROLL):
            chunk, mask = _find_chunk(start + i, sizes.num_chunks, in_tile, off_d, ADJOINT)
            off = (number * sizes.num_chunks + chunk) * sizes.num_channels
            state_ptrs = states_ptr + off * num_states + n * sizes.num_channels + off_d
            tl.store(state_ptrs, h, mask=mask)
            h = tl.exp2(A * totals[i]) * h + ends[i]


@triton.jit
def _find_chunk(i, num_chunks, in_tile, off_d, ADJOINT: tl.constexpr):
    """Return the chunk that comes as number i, and a mask that is false where there is none."""
    chunk = i
    if ADJOINT:
        chunk = num_chunks - 1 - i
    return chunk, in_tile & (off_d * 0 + i < num_chunks)


@triton.jit
def scan_fwd_kernel(
    x,
    B,
    C,
    dt,
    steps,
    paths,
    sizes,
    A_ptr,
    D_ptr,
    states_ptr,
    y_ptr,
    N: tl.constexpr,
    RANK: tl.constexpr,
    SIDES: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HAS_GAP: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    GROUP: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Write y, (B, planes, L, D): h = exp(A G) h + dt B x, y = sum over N of C h + D x.

    h starts from ``states``. A program takes all groups and both sides of its chunk in turn and
    adds to what it wrote itself. State and sums are float32.
    """
    num_groups: tl.constexpr = (N + GROUP - 1) // GROUP
    num_planes = sizes.num_paths // SIDES
    tile, rest = take_part(tl.program_id(0), tl.cdiv(sizes.num_channels, BLOCK_D))
    chunk, rest = take_part(rest, sizes.num_chunks)
    plane, rest = take_part(rest, num_planes)
    image = rest.to(tl.int64)
    off_d = tile * BLOCK_D + tl.arange(0, BLOCK_D)
    in_tile = off_d < sizes.num_channels
    off_y = (image * num_planes + plane) * sizes.length * sizes.num_channels

    for turn in range(num_groups * SIDES):
        first = turn // SIDES * GROUP
        path, row, is_reversed = find_slot(paths, plane * SIDES + turn % SIDES, SIDES)
        own_chunk = chunk + is_reversed * (sizes.num_chunks - 1 - 2 * chunk)
        parameters = load_step_parameters(steps, sizes, path, off_d, RANK)
        off_path = path * sizes.num_channels
        A = load_states(A_ptr, off_path * N, sizes.num_channels, first, off_d, N, GROUP)
        once = in_tile & (off_d * 0 + first == 0)
        skip = tl.load(D_ptr + off_path + off_d, mask=once, other=0.0)
        number = (image * sizes.num_paths + path) * sizes.num_chunks + own_chunk
        off_states = number * N * sizes.num_channels
        h = load_states(states_ptr, off_states, sizes.num_channels, first, off_d, N, GROUP)
        for start in range(0, BLOCK_T, UNROLL):
            # Stores stand last, so that the loads of all steps may be in flight at once.
            pixels, ys = (), ()
            for i in tl.static_range(UNROLL):
                place = own_chunk * BLOCK_T + start + i
                pixel, gap = find_pixel(
                    paths, sizes, image, path, row, is_reversed, place, BLOCK_T, HAS_GAP
                )
                mask = in_tile & (off_d * 0 + pixel >= 0)
                row_x = load_row(x, image, path, pixel, off_d, mask)
                row_B = load_weights(B, image, path, pixel, first, N, GROUP)
                row_C = load_weights(C, image, path, pixel, first, N, GROUP)
                step, decay_dt, _slope = load_step(
                    dt, image, path, pixel, gap, parameters, off_d, mask, RANK, SOFTPLUS
                )
                y = skip * row_x
                if num_groups * SIDES > 1:
                    is_later = mask & (off_d * 0 + turn > 0)
                    y_ptrs = y_ptr + off_y + pixel.to(tl.int64) * sizes.num_channels + off_d
                    y += tl.load(y_ptrs, mask=is_later, other=0.0)
                new = ()
                for n in tl.static_range(GROUP):
                    state = tl.exp2(decay_dt * A[n]) * h[n] + step * row_x * row_B[n]
                    y += state * row_C[n]
                    new = new + (state,)
                h = new
                pixels = pixels + (pixel,)
                ys = ys + (y,)
            for i in tl.static_range(UNROLL):
                mask = in_tile & (off_d * 0 + pixels[i] >= 0)
                y_ptrs = y_ptr + off_y + pixels[i].to(tl.int64) * sizes.num_channels + off_d
                tl.store(y_ptrs, ys[i], mask=mask)
