"""A depth-wise convolution of tokens that lie anywhere: each row knows which are its neighbours.

Legend: T rows, T' rows of the result, D channels, J neighbours of a row.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops._suited import suits_numba


def depthwise_rows(
    x_TD: Tensor, neighbours_TJ: Tensor, weight_JD: Tensor, bias_D: Tensor | None = None
) -> Tensor:
    """Return ``y_t = bias + sum over j of weight_j x_n(t, j)``: (T', D).

    On a map with zeros around it, whose pixels' neighbours are those of a k x k window, it is its
    depth-wise convolution. Kernels of numba run it on the CPU where no gradient is wanted and all
    is float32; else it is plain torch, differentiable.

    Args:
        x_TD: Rows (T, D).
        neighbours_TJ: Rows that each row of the result sees, int32 (T', J); negative numbers see
            zeros.
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
    if suits_numba(x_TD, weight_JD, bias_D):
        from cvmh.ops._numba_depthwise import run_depthwise

        rows = x_TD if x_TD.stride(1) == 1 else x_TD.contiguous()
        return run_depthwise(rows, neighbours_TJ.contiguous(), weight_JD, bias_D)
    seen = gather_rows(x_TD, neighbours_TJ.flatten()).view(*neighbours_TJ.shape, -1)
    y_TD = (seen * weight_JD).sum(1)
    return y_TD if bias_D is None else y_TD + bias_D


def gather_rows(x_TD: Tensor, rows_T: Tensor) -> Tensor:
    """Return rows in another order, as often as named, and zeros for negative numbers: (T', D).

    Args:
        x_TD: Rows (T, D).
        rows_T: Which they are, int32 (T',).
    """
    last = len(x_TD)
    return functional.pad(x_TD, (0, 0, 0, 1)).index_select(0, rows_T.where(rows_T >= 0, last))
