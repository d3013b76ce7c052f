"""A convolution of patches whose pixels lie anywhere: a table names those of each, and its border.

Legend: N patches, P pixels along a patch's side with its border, Q of the result, T rows, C
channels, k window, D channels of the result.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops._suited import suits_numba


def convolve_patches(
    x_TC: Tensor,
    around_NPP: Tensor,
    weight_DCkk: Tensor,
    bias_D: Tensor | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolutions of patches, without padding: (N, Q, Q, D), Q = (P - k) // stride + 1.

    Kernels of numba run it on the CPU where :func:`is_convolved_in_place`: no patch is put together
    then, and a pixel of the result has the same bits in whatever company. Else it is plain torch,
    differentiable.

    Args:
        x_TC: Rows (T, C): the pixels.
        around_NPP: Which of them each patch has, int32 (N, P, P); negative numbers see zeros, and
            others must be below T, which is not looked at.
        weight_DCkk: As of :class:`torch.nn.Conv2d`, (D, C / groups, k, k), k at most P.
        bias_D: Added to each pixel, (D,).
        stride: Pixels from one window to the next, in both directions.
        groups: Of channels, each of which goes into its share of the results.

    Raises:
        ShapeError: If shapes do not fit together, or the table is not int32.
    """
    _check(x_TC, around_NPP, weight_DCkk, bias_D, stride=stride, groups=groups)
    if is_convolved_in_place(x_TC, weight_DCkk, bias_D, groups=groups):
        from cvmh.ops._numba_convolution import run_convolution
        from cvmh.ops._numba_depthwise import run_depthwise

        rows = x_TC if x_TC.stride(1) == 1 else x_TC.contiguous()
        run = run_convolution if groups == 1 else run_depthwise
        return run(rows, around_NPP.contiguous(), weight_DCkk, bias_D, stride)
    patches = gather_rows(x_TC, around_NPP.flatten()).view(*around_NPP.shape, x_TC.shape[1])
    maps = functional.conv2d(
        patches.permute(0, 3, 1, 2), weight_DCkk, bias_D, stride, groups=groups
    )
    return maps.permute(0, 2, 3, 1)


def is_convolved_in_place(
    x: Tensor, weight_DCkk: Tensor, bias_D: Tensor | None = None, *, groups: int
) -> bool:
    """Return whether values such as these are convolved without putting patches together.

    That is on the CPU, in float32, without gradients, and with all channels in one group or each in
    its own.
    """
    num_results, of_group = weight_DCkk.shape[:2]
    is_depthwise = of_group == 1 and num_results == groups
    return (groups == 1 or is_depthwise) and suits_numba(x, weight_DCkk, bias_D)


def gather_rows(x_TD: Tensor, rows_T: Tensor) -> Tensor:
    """Return rows in another order, as often as named, and zeros for negative numbers: (T', D).

    Args:
        x_TD: Rows (T, D).
        rows_T: Which they are, int32 (T',).
    """
    last = len(x_TD)
    return functional.pad(x_TD, (0, 0, 0, 1)).index_select(0, rows_T.where(rows_T >= 0, last))


def _check(
    x_TC: Tensor,
    around_NPP: Tensor,
    weight_DCkk: Tensor,
    bias_D: Tensor | None,
    *,
    stride: int,
    groups: int,
) -> None:
    fits = (x_TC.dim(), around_NPP.dim(), weight_DCkk.dim()) == (2, 3, 4) and stride >= 1
    fits = fits and around_NPP.shape[1] == around_NPP.shape[2] >= weight_DCkk.shape[2]
    fits = fits and weight_DCkk.shape[2] == weight_DCkk.shape[3]
    fits = fits and (bias_D is None or bias_D.shape == weight_DCkk.shape[:1])
    fits = fits and groups * weight_DCkk.shape[1] == x_TC.shape[1]
    if not fits or around_NPP.dtype != torch.int32:
        raise ShapeError(
            "x must be (T, C), around int32 (N, P, P), weight (D, C, k, k) with k at most P, bias "
            f"(D,) or None, and stride at least 1, got x {tuple(x_TC.shape)}, around "
            f"{tuple(around_NPP.shape)} of {around_NPP.dtype}, weight {tuple(weight_DCkk.shape)}, "
            f"bias {None if bias_D is None else tuple(bias_D.shape)}, stride {stride} and "
            f"{groups} groups"
        )
