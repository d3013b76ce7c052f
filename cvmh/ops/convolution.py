"""A convolution of patches whose pixels lie anywhere: a table names those of each, and its border.

Legend: N patches, P pixels along a patch's side with its border, Q of the result, T rows, C
channels, k window, D channels of the result.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops._suited import suits_numba
from cvmh.ops.depthwise import gather_rows


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

    Kernels of numba run it on the CPU where no gradient is wanted, all is float32 and channels are
    one group: no patch is put together then, and a pixel of the result has the same bits in
    whatever company. Else it is plain torch, differentiable.

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
    if groups == 1 and suits_numba(x_TC, weight_DCkk, bias_D):
        from cvmh.ops._numba_convolution import run_convolution

        rows = x_TC if x_TC.stride(1) == 1 else x_TC.contiguous()
        return run_convolution(rows, around_NPP.contiguous(), weight_DCkk, bias_D, stride)
    patches = gather_rows(x_TC, around_NPP.flatten()).view(*around_NPP.shape, x_TC.shape[1])
    maps = functional.conv2d(
        patches.permute(0, 3, 1, 2), weight_DCkk, bias_D, stride, groups=groups
    )
    return maps.permute(0, 2, 3, 1)


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
