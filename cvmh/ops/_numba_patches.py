"""What kernels have in common that convolve patches whose rows lie anywhere.

Legend: N patches, P rows along a patch's side with its border, Q of the result, T rows, C channels,
k window, D channels of the result.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cvmh.ops._numba_launch import Kernel, in_vectors

# What every such kernel is told.
FIELDS = (
    *("x", "y", "around", "weight", "bias"),
    *("num_pixels", "num_channels", "num_results", "row"),
    *("patch_size", "area", "corners", "num_steps", "steps"),
)


def run_on_patches(
    kernel: Kernel,
    x_TC: Tensor,
    around_NPP: Tensor,
    packed: Tensor,
    bias_D: Tensor | None,
    *,
    num_results: int,
    window: int,
    stride: int,
    block: int,
    **others: int,
) -> Tensor:
    """Return what a kernel makes of float32 patches: (N, Q, Q, D).

    The channels of a row lie side by side, rows as far apart as they are; the table, int32 and
    negative where zeros are, is contiguous.

    Args:
        kernel: of :data:`FIELDS` and the names of ``others``.
        x_TC: the rows.
        around_NPP: which of them each patch has.
        packed: weights, as the kernel wants them.
        bias_D: added to each pixel.
        num_results: D.
        window: k.
        stride: pixels from one window to the next.
        block: pixels of the result that a thread takes at a time.
        **others: what this kernel alone is told.
    """
    num_patches, patch, _ = around_NPP.shape
    result = (patch - window) // stride + 1
    y_NQQD = x_TC.new_empty(num_patches, result, result, num_results)
    bias = in_vectors(x_TC.new_zeros(num_results) if bias_D is None else bias_D)
    # Where in a patch windows begin, and how far from there their pixels lie.
    corners, steps = _places_in_square(patch, result, stride), _places_in_square(patch, window, 1)
    num_pixels = num_patches * result**2
    kernel.run(
        -(-num_pixels // block),
        x=x_TC.data_ptr(),
        y=y_NQQD.data_ptr(),
        around=around_NPP.data_ptr(),
        weight=packed.data_ptr(),
        bias=bias.data_ptr(),
        num_pixels=num_pixels,
        num_channels=x_TC.shape[1],
        num_results=num_results,
        row=x_TC.stride(0),
        patch_size=patch**2,
        area=result**2,
        corners=corners.ctypes.data,
        num_steps=window**2,
        steps=steps.ctypes.data,
        **others,
    )
    return y_NQQD


@lru_cache(maxsize=64)
def _places_in_square(width: int, count: int, stride: int) -> NDArray[np.int32]:
    """Return the numbers of the first few pixels, or of each so many, of the first few rows."""
    places = np.arange(count, dtype=np.int32) * stride
    return (places[:, None] * np.int32(width) + places).ravel()
