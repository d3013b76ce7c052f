"""The convolution of patches whose rows lie anywhere, as a kernel of numba.

Legend: N patches, P rows along a patch's side with its border, Q of the result, T rows, C channels,
k window, D channels of the result.
"""

from numba import carray, njit
from torch import Tensor

from cvmh.ops._numba_kernels import at
from cvmh.ops._numba_launch import Kernel, in_vectors
from cvmh.ops._numba_patches import FIELDS, run_on_patches
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_vectors import (
    fill,
    load_float,
    load_int,
    load_vector,
    store_lanes,
    take_ticket,
)

# Pixels whose sums are kept in registers together, and pixels that a thread takes at a time. Twelve
# would be a tenth faster with AVX-512, and take twice as long with AVX2, which lacks the registers.
TOGETHER, BLOCK = 6, 96


def run_convolution(
    x_TC: Tensor, around_NPP: Tensor, weight_DCkk: Tensor, bias_D: Tensor | None, stride: int
) -> Tensor:
    """Return the convolution (N, Q, Q, D) of patches, as :func:`run_on_patches` wants them."""
    num_results, channels, window, _ = weight_DCkk.shape
    # In whole vectors of results, one vector after the other.
    vectors = in_vectors(weight_DCkk.permute(2, 3, 1, 0)).unflatten(-1, (-1, LANES))
    packed, nothing = vectors.movedim(-2, 0).contiguous(), x_TC.new_zeros(channels)
    return run_on_patches(
        KERNEL,
        *(x_TC, around_NPP, packed, bias_D),
        num_results=num_results,
        window=window,
        stride=stride,
        block=BLOCK,
        nothing=nothing.data_ptr(),
    )


def _make(stamp):
    def run(plans):
        plan = carray(plans, 1)[0]
        first = take_ticket(plan.counter, 0) * BLOCK
        while stamp and first < plan.num_pixels:
            end = min(first + BLOCK, plan.num_pixels)
            for lane in range(0, plan.num_results, LANES):
                for pixel in range(first, end, TOGETHER):
                    _convolve(plan, pixel, end - 1, lane)
            first = take_ticket(plan.counter, 0) * BLOCK

    return run


KERNEL = Kernel(_make, *FIELDS, "nothing")


@njit(forceinline=True)
def _corner(plan, patch, inside):
    """Return where in the table the window of a pixel begins, counted from some patch on."""
    while inside >= plan.area:
        patch, inside = patch + 1, inside - plan.area
    return patch * plan.patch_size + load_int(plan.corners, inside)


@njit(forceinline=True)
def _source(plan, place):
    """Return where the channels of a place of the table are, zeros where there is nothing."""
    row = load_int(plan.around, place)
    return plan.nothing if row < 0 else at(plan.x, row * plan.row)


@njit(forceinline=True)
def _store(plan, pixel, lane, total):
    store_lanes(plan.y, pixel * plan.num_results + lane, plan.num_results - lane, total)


@njit
def _convolve(plan, first, last, lane):
    """Convolve six pixels for one vector of results; behind the last pixel it is repeated."""
    pixel_1, pixel_2, pixel_3 = min(first + 1, last), min(first + 2, last), min(first + 3, last)
    pixel_4, pixel_5 = min(first + 4, last), min(first + 5, last)
    patch = first // plan.area
    begin = patch * plan.area
    corner_0 = _corner(plan, patch, first - begin)
    corner_1 = _corner(plan, patch, pixel_1 - begin)
    corner_2 = _corner(plan, patch, pixel_2 - begin)
    corner_3 = _corner(plan, patch, pixel_3 - begin)
    corner_4 = _corner(plan, patch, pixel_4 - begin)
    corner_5 = _corner(plan, patch, pixel_5 - begin)
    sum_0 = sum_1 = sum_2 = sum_3 = sum_4 = sum_5 = load_vector(plan.bias, lane)
    weight = at(plan.weight, lane * plan.num_steps * plan.num_channels)
    for number in range(plan.num_steps):
        step = load_int(plan.steps, number)
        x_0, x_1 = _source(plan, corner_0 + step), _source(plan, corner_1 + step)
        x_2, x_3 = _source(plan, corner_2 + step), _source(plan, corner_3 + step)
        x_4, x_5 = _source(plan, corner_4 + step), _source(plan, corner_5 + step)
        for channel in range(plan.num_channels):
            w = load_vector(weight, channel * LANES)
            sum_0 = sum_0 + fill(load_float(x_0, channel)) * w
            sum_1 = sum_1 + fill(load_float(x_1, channel)) * w
            sum_2 = sum_2 + fill(load_float(x_2, channel)) * w
            sum_3 = sum_3 + fill(load_float(x_3, channel)) * w
            sum_4 = sum_4 + fill(load_float(x_4, channel)) * w
            sum_5 = sum_5 + fill(load_float(x_5, channel)) * w
        weight = at(weight, plan.num_channels * LANES)
    _store(plan, first, lane, sum_0)
    _store(plan, pixel_1, lane, sum_1)
    _store(plan, pixel_2, lane, sum_2)
    _store(plan, pixel_3, lane, sum_3)
    _store(plan, pixel_4, lane, sum_4)
    _store(plan, pixel_5, lane, sum_5)
