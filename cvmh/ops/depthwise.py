"""A depth-wise convolution of tokens that lie anywhere: each row knows which are its neighbours.

Legend: T rows, T' rows of the result, D channels, J neighbours of a row.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops._numba_sizes import LANES
from cvmh.ops.selective_scan import choose_backend


def depthwise_rows(
    x_TD: Tensor, neighbours_TJ: Tensor, weight_JD: Tensor, bias_D: Tensor | None = None
) -> Tensor:
    """Return ``y_t = bias + sum over j of weight_j x_n(t, j)``: (T', D).

    On a map with zeros around it, whose pixels' neighbours are those of a k x k window, it is its
    depth-wise convolution. Kernels of numba run it on the CPU where no gradient is wanted and all
    is float32; else it is plain torch, differentiable.

    Args:
        x_TD: Rows (T, D).
        neighbours_TJ: Rows that each row of the result sees, int32 (T', J); -1 sees zeros.
        weight_JD: Weights (J, D).
        bias_D: Added to each row, (D,).

    Raises:
        ShapeError: If shapes do not fit together, or the table is not int32.
    """
    fits = x_TD.dim() == neighbours_TJ.dim() == weight_JD.dim() == 2
    fits = fits and weight_JD.shape == (neighbours_TJ.shape[1], x_TD.shape[1])
    if not fits or neighbours_TJ.dtype != torch.int32:
        raise ShapeError(
            "x must be (T, D), neighbours int32 (T', J) and weight (J, D), got x "
            f"{tuple(x_TD.shape)}, neighbours {tuple(neighbours_TJ.shape)} of "
            f"{neighbours_TJ.dtype} and weight {tuple(weight_JD.shape)}"
        )
    if _is_for_numba(x_TD, weight_JD):
        from cvmh.ops._numba_depthwise import run_depthwise

        lanes = -weight_JD.shape[1] % LANES
        bias = x_TD.new_zeros(x_TD.shape[1]) if bias_D is None else bias_D
        return run_depthwise(
            x_TD.contiguous(),
            neighbours_TJ.contiguous(),
            functional.pad(weight_JD, (0, lanes)).contiguous(),
            functional.pad(bias, (0, lanes)).contiguous(),
        )
    seen = functional.pad(x_TD, (0, 0, 0, 1))[neighbours_TJ.long()]
    y_TD = (seen * weight_JD).sum(1)
    return y_TD if bias_D is None else y_TD + bias_D


def _is_for_numba(x_TD: Tensor, weight_JD: Tensor) -> bool:
    is_plain = x_TD.device.type == "cpu" and x_TD.dtype == weight_JD.dtype == torch.float32
    wants_gradient = torch.is_grad_enabled() and (x_TD.requires_grad or weight_JD.requires_grad)
    return is_plain and not wants_gradient and choose_backend(device="cpu") == "numba"
