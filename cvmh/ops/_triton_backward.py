"""The last kernel of the backward of the triton backend: gradients, chunk by chunk.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
README.md derives the pass.
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
    take_part,
)


@triton.jit
def scan_bwd_kernel(
    x,
    B,
    C,
    dy,
    dt,
    steps,
    paths,
    sizes,
    A_ptr,
    D_ptr,
    states_ptr,
    adjoints_ptr,
    scratch_ptr,
    grad_x_ptr,
    grad_dt_ptr,
    grad_weights_ptr,
    grad_small_ptr,
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
    """Write the gradients of all inputs, with q_t = exp(A G_t) (q_{t+1} + C_t dy_t). All float32.

    A program takes all groups and both sides of its chunk in turn. It first runs the states of a
    group forward and puts those before every UNROLL steps into its part of ``scratch``, (programs,
    BLOCK_T / UNROLL, GROUP, BLOCK_D); then it runs backward, UNROLL steps in registers at a time.

    ``grad_x`` is (B, planes, L, D), ``grad_dt`` (B, K, L, D) and of dt before the softplus,
    ``grad_weights`` (tiles, B, K, L, 2 N), of B and C, ``grad_small`` (B, chunks, K, groups,
    GROUP + 3, D), of the states of A, D, gap_dt and dt_bias. Only grad_dt may be narrower than
    float32.
    """
    num_groups: tl.constexpr = (N + GROUP - 1) // GROUP
    num_blocks: tl.constexpr = BLOCK_T // UNROLL
    block_size: tl.constexpr = GROUP * BLOCK_D
    # Of the logarithm to base e, which A is not scaled by.
    LN_2: tl.constexpr = 0.6931471805599453
    num_channels, num_planes = sizes.num_channels, sizes.num_paths // SIDES
    num_tiles = tl.cdiv(num_channels, BLOCK_D)
    tile, rest = take_part(tl.program_id(0), num_tiles)
    chunk, rest = take_part(rest, sizes.num_chunks)
    plane, rest = take_part(rest, num_planes)
    image = rest.to(tl.int64)
    num_images = tl.num_programs(0) // (num_tiles * sizes.num_chunks * num_planes)
    lanes = tl.arange(0, BLOCK_D)
    off_d = tile * BLOCK_D + lanes
    in_tile = off_d < num_channels
    off_x = (image * num_planes + plane) * sizes.length * num_channels
    scratch_ptrs = scratch_ptr + tl.program_id(0).to(tl.int64) * num_blocks * block_size + lanes

    for turn in range(num_groups * SIDES):
        group = turn // SIDES
        first = group * GROUP
        path, row, is_reversed = find_slot(paths, plane * SIDES + turn % SIDES, SIDES)
        own_chunk = chunk + is_reversed * (sizes.num_chunks - 1 - 2 * chunk)
        parameters = load_step_parameters(steps, sizes, path, off_d, RANK)
        A = load_states(A_ptr, path * N * num_channels, num_channels, first, off_d, N, GROUP)
        once = in_tile & (off_d * 0 + first == 0)
        skip = tl.load(D_ptr + path * num_channels + off_d, mask=once, other=0.0)
        number = image * sizes.num_paths + path
        off_states = (number * sizes.num_chunks + own_chunk) * N * num_channels
        h = load_states(states_ptr, off_states, num_channels, first, off_d, N, GROUP)
        for block in range(num_blocks):
            for n in tl.static_range(GROUP):
                tl.store(scratch_ptrs + block * block_size + n * BLOCK_D, h[n])
            for i in tl.static_range(UNROLL):
                place = own_chunk * BLOCK_T + block * UNROLL + i
                pixel, gap = find_pixel(
                    paths, sizes, image, path, row, is_reversed, place, BLOCK_T, HAS_GAP
                )
                mask = in_tile & (off_d * 0 + pixel >= 0)
                row_x = load_row(x, image, path, pixel, off_d, mask)
                row_B = load_weights(B, image, path, pixel, first, N, GROUP)
                step, decay_dt, _slope = load_step(
                    dt, image, path, pixel, gap, parameters, off_d, mask, RANK, SOFTPLUS
                )
                new = ()
                for n in tl.static_range(GROUP):
                    decay = tl.exp2(decay_dt * A[n])
                    new = new + (decay * h[n] + step * row_x * row_B[n],)
                h = new

        q = load_states(adjoints_ptr, off_states, num_channels, first, off_d, N, GROUP)
        zero = tl.zeros([BLOCK_D], tl.float32)
        grad_A = ()
        for _ in tl.static_range(GROUP):
            grad_A = grad_A + (zero,)
        grad_D, grad_gap_dt, grad_bias = zero, zero, zero
        for back in range(num_blocks):
            block = num_blocks - 1 - back
            before = ()
            for n in tl.static_range(GROUP):
                before = before + (tl.load(scratch_ptrs + block * block_size + n * BLOCK_D),)
            # One tuple of each a step; of states one more, for there is one before the first.
            states, decays, rows, sums, scalars, places = (before,), (), (), (), (), ()
            for i in tl.static_range(UNROLL):
                place = own_chunk * BLOCK_T + block * UNROLL + i
                pixel, gap = find_pixel(
                    paths, sizes, image, path, row, is_reversed, place, BLOCK_T, HAS_GAP
                )
                mask = in_tile & (off_d * 0 + pixel >= 0)
                row_x = load_row(x, image, path, pixel, off_d, mask)
                row_dy = load_row(dy, image, path, pixel, off_d, mask)
                row_B = load_weights(B, image, path, pixel, first, N, GROUP)
                row_C = load_weights(C, image, path, pixel, first, N, GROUP)
                step, decay_dt, slope = load_step(
                    dt, image, path, pixel, gap, parameters, off_d, mask, RANK, SOFTPLUS
                )
                decay, new = (), ()
                for n in tl.static_range(GROUP):
                    decay = decay + (tl.exp2(decay_dt * A[n]),)
                    new = new + (decay[n] * states[i][n] + step * row_x * row_B[n],)
                # Read early too: after the first store, later loads would wait.
                grad_x, grad_dt = zero, zero
                if num_groups * SIDES > 1:
                    is_later = mask & (off_d * 0 + turn > 0)
                    off = off_x + pixel.to(tl.int64) * num_channels
                    grad_x = tl.load(grad_x_ptr + off + off_d, mask=is_later, other=0.0)
                if num_groups > 1:
                    is_later = mask & (off_d * 0 + group > 0)
                    off = (number * sizes.length + pixel) * num_channels
                    grad_dt = tl.load(grad_dt_ptr + off + off_d, mask=is_later, other=0.0)
                states = states + (new,)
                decays = decays + (decay,)
                rows = rows + ((row_x, row_dy, step, decay_dt, slope),)
                sums = sums + ((grad_x, grad_dt),)
                scalars = scalars + ((row_B, row_C, gap),)
                places = places + (pixel,)

            for i in tl.static_range(UNROLL):
                row_x, row_dy, step, decay_dt, slope = rows[UNROLL - 1 - i]
                grad_x, earlier_grad_dt = sums[UNROLL - 1 - i]
                row_B, row_C, gap = scalars[UNROLL - 1 - i]
                pixel = places[UNROLL - 1 - i].to(tl.int64)
                through, exponent = zero, zero
                new_q, new_grad_A = (), ()
                off_w = (
                    (tile * num_images + image) * sizes.num_paths + path
                ) * sizes.length + pixel
                for n in tl.static_range(GROUP):
                    g = q[n] + row_C[n] * row_dy
                    through += g * row_B[n]
                    is_state = (pixel >= 0) & (first + n < N)
                    w_ptr = grad_weights_ptr + off_w * 2 * N + first + n
                    tl.store(w_ptr, tl.sum(g * (step * row_x), axis=0), mask=is_state)
                    state = states[UNROLL - i][n]
                    tl.store(w_ptr + N, tl.sum(row_dy * state, axis=0), mask=is_state)
                    g = g * decays[UNROLL - 1 - i][n]
                    new_q = new_q + (g,)
                    # Multiplied out: the difference of h and dt B x cancels in a strong decay.
                    e = g * states[UNROLL - 1 - i][n]
                    exponent += e * A[n]
                    new_grad_A = new_grad_A + (grad_A[n] + e * decay_dt,)
                q, grad_A = new_q, new_grad_A

                exponent = exponent * LN_2
                mask = in_tile & (off_d * 0 + pixel >= 0)
                grad_x += through * step + skip * row_dy
                x_ptrs = grad_x_ptr + off_x + pixel * num_channels + off_d
                tl.store(x_ptrs, grad_x, mask=mask)
                grad_D += row_dy * row_x
                grad_gap_dt += exponent * gap
                grad_dt = tl.where(mask, (through * row_x + exponent) * slope, 0.0)
                grad_bias += grad_dt
                dt_ptrs = grad_dt_ptr + (number * sizes.length + pixel) * num_channels + off_d
                tl.store(dt_ptrs, earlier_grad_dt + grad_dt, mask=mask)

        off_small = (image * sizes.num_chunks + own_chunk) * sizes.num_paths + path
        off_small = (off_small * num_groups + group) * (GROUP + 3) * num_channels
        small_ptrs = grad_small_ptr + off_small + off_d
        for n in tl.static_range(GROUP):
            tl.store(small_ptrs + n * num_channels, grad_A[n], mask=in_tile)
        # D is counted once, with the first group.
        small_ptrs += GROUP * num_channels
        tl.store(small_ptrs, tl.where(once, grad_D, 0.0), mask=in_tile)
        tl.store(small_ptrs + num_channels, grad_gap_dt, mask=in_tile)
        tl.store(small_ptrs + 2 * num_channels, grad_bias, mask=in_tile)
