"""What all kernels of the triton backend share: walking a path and reading what stands there.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
A *slot* is a place in the list of paths; with pairs, slots 2 i and 2 i + 1 hold a path and its
exact reverse, the two *sides* of a *plane*. A reversed side reads the row of its partner backwards
and begins with what is missing in the last chunk of that, so that a chunk of one holds the pixels
of a chunk of the other. Without pairs, each path is a plane.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Map(NamedTuple):
    """A tensor (B, K, L, ...) and its strides; ``path`` is 0 where all paths share one map."""

    ptr: Any
    image: int
    path: int
    pixel: int
    last: int


class Steps(NamedTuple):
    """What turns a map of dt into steps: (K, R, D), (K, D) and (K, D), float32."""

    weight_ptr: Any
    bias_ptr: Any
    gap_dt_ptr: Any


class Paths(NamedTuple):
    """The order and the gaps, (K, T) or (B, K, T), and the path in each slot, (K,)."""

    order_ptr: Any
    gap_ptr: Any
    slots_ptr: Any
    image: int


class Sizes(NamedTuple):
    """K, T, D, L and the number of chunks that a path is cut into."""

    num_paths: int
    num_steps: int
    num_channels: int
    length: int
    num_chunks: int


@triton.jit
def take_part(part, count):
    """Return ``part % count`` and ``part // count``: one coordinate of a program, and the rest."""
    return part % count, part // count


@triton.jit
def load_rows(ptr, off, row_size, off_d, mask, COUNT: tl.constexpr):
    """Return COUNT rows as a tuple of vectors over channels."""
    rows = ()
    for i in tl.static_range(COUNT):
        row = tl.load(ptr + off + i * row_size + off_d, mask=mask, other=0.0)
        rows = rows + (row.to(tl.float32),)
    return rows


@triton.jit
def load_states(ptr, off, num_channels, first, off_d, N: tl.constexpr, GROUP: tl.constexpr):
    """Return rows ``first`` to ``first + GROUP`` of (N, D), zero where there is no such state."""
    rows = ()
    for i in tl.static_range(GROUP):
        mask = (off_d < num_channels) & (off_d * 0 + first + i < N)
        rows = rows + (
            tl.load(ptr + off + (first + i) * num_channels + off_d, mask=mask, other=0.0),
        )
    return rows


@triton.jit
def store_states(rows, ptr, off, num_channels, first, off_d, N: tl.constexpr, GROUP: tl.constexpr):
    """Write what ``load_states`` would read."""
    for i in tl.static_range(GROUP):
        mask = (off_d < num_channels) & (off_d * 0 + first + i < N)
        tl.store(ptr + off + (first + i) * num_channels + off_d, rows[i], mask=mask)


@triton.jit
def load_weights(map, image, path, pixel, first, N: tl.constexpr, GROUP: tl.constexpr):
    """Return the scalars B or C of GROUP states at a pixel, zero where there is none."""
    off = image * map.image + path * map.path + pixel.to(tl.int64) * map.pixel
    values = ()
    for i in tl.static_range(GROUP):
        mask = (pixel >= 0) & (first + i < N)
        value = tl.load(map.ptr + off + (first + i) * map.last, mask=mask, other=0.0)
        values = values + (value.to(tl.float32),)
    return values


@triton.jit
def load_row(map, image, path, pixel, off_d, mask):
    """Return the channels of a pixel."""
    off = image * map.image + path * map.path + pixel.to(tl.int64) * map.pixel
    return tl.load(map.ptr + off + off_d * map.last, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def find_slot(paths, slot, SIDES: tl.constexpr):
    """Return the path in a slot, the row of the order that it follows, and 1 if backwards."""
    side = slot % SIDES
    path = tl.load(paths.slots_ptr + slot).to(tl.int64)
    row = tl.load(paths.slots_ptr + slot - side).to(tl.int64)
    return path, row, side


@triton.jit
def find_pixel(
    paths, sizes, image, path, row, is_reversed, place, BLOCK_T: tl.constexpr, HAS_GAP: tl.constexpr
):
    """Return the pixel at a place of a path, -1 for padding, and the gap before it.

    Places are counted along the path from the start of its first chunk. That of a reversed path
    may begin with places before its first step.
    """
    step = place + is_reversed * (sizes.num_chunks * BLOCK_T - 1 - 2 * place)
    inside = step < sizes.num_steps
    off = image * paths.image + row * sizes.num_steps + step
    pixel = tl.load(paths.order_ptr + off, mask=inside, other=-1)
    gap = 0.0
    if HAS_GAP:
        own = step + is_reversed * (sizes.num_steps - 1 - 2 * step)
        off = image * paths.image + path * sizes.num_steps + own
        gap = tl.load(paths.gap_ptr + off, mask=inside, other=0).to(tl.float32)
        gap = tl.where(pixel >= 0, gap, 0.0)
    return pixel, gap


@triton.jit
def load_step_parameters(steps, sizes, path, off_d, RANK: tl.constexpr):
    """Return weight, bias and gap_dt of a path, for some channels."""
    mask = off_d < sizes.num_channels
    off = path * sizes.num_channels
    weight = load_rows(steps.weight_ptr, off * RANK, sizes.num_channels, off_d, mask, RANK)
    bias = tl.load(steps.bias_ptr + off + off_d, mask=mask, other=0.0)
    gap_dt = tl.load(steps.gap_dt_ptr + off + off_d, mask=mask, other=0.0)
    return weight, bias, gap_dt


@triton.jit
def softplus(value):
    """Return log(1 + exp(v)) and its slope, to 1e-6 of each however small.

    With e = exp(-|v|) and s = e / (2 + e), log(1 + e) = 2 atanh(s), and atanh(s) / s is a
    polynomial in s^2. The logarithm of the device is exact to 2^-22 in absolute terms only.
    """
    small = tl.exp(-tl.abs(value))
    ratio = small / (2.0 + small)
    z = ratio * ratio
    series = 0.13980709417399922 + z * 0.14087328631737464
    series = 0.33333157967540605 + z * (0.20012426861731436 + z * series)
    series = 1.0000000039388741 + z * series
    slope = tl.where(value >= 0, 1.0, small) / (1.0 + small)
    return tl.maximum(value, 0.0) + 2.0 * ratio * series, slope


@triton.jit
def load_step(
    dt,
    image,
    path,
    pixel,
    gap,
    parameters,
    off_d,
    mask,
    RANK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """Return dt at a pixel, the step G of the decay, and the slope of dt; zeros for padding."""
    weight, bias, gap_dt = parameters
    if RANK == 0:
        value = load_row(dt, image, path, pixel, off_d, mask) + bias
    else:
        low = load_weights(dt, image, path, pixel, 0, RANK, RANK)
        value = bias
        for i in tl.static_range(RANK):
            value += low[i] * weight[i]
    slope = value * 0.0 + 1.0
    if SOFTPLUS:
        value, slope = softplus(value)
    value = tl.where(mask, value, 0.0)
    return value, value + gap * gap_dt, slope
