"""Pixels that come of each pixel, normed and put in place: how decoders enlarge a map.

Legend: B batch, H W map, C channels of the result, f factor, E channels of a map beside it.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops._suited import suits_numba


def expand_pixels(
    x_BHWC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    *,
    factor: int,
    eps: float = 1e-5,
    beside_BHWE: Tensor | None = None,
) -> Tensor:
    """Return the LayerNorm of f x f pixels of each pixel, put in place: (B, f H, f W, C + E).

    Kernels of numba run it on the CPU where no gradient is wanted and all is float32: each value
    is read and written once. Else it is plain torch, differentiable.

    Args:
        x_BHWC: The pixels, row by row, one after the other: (B, H, W, f f C).
        weight_C: Of the norm.
        bias_C: Of the norm.
        factor: f.
        eps: Of the norm.
        beside_BHWE: A map (B, f H, f W, E) whose channels go behind those of the pixels.

    Raises:
        ShapeError: If shapes do not fit together.
    """
    batch, height, width, _ = x_BHWC.shape
    wanted = batch, factor * height, factor * width
    _check(x_BHWC, weight_C, bias_C, factor, beside_BHWE, wanted)
    x = x_BHWC.reshape(batch, height, width, factor, factor, len(weight_C))
    if suits_numba(x, weight_C, bias_C, beside_BHWE):
        from cvmh.ops._numba_expansion import run_expansion

        beside = None if beside_BHWE is None else beside_BHWE.contiguous()
        return run_expansion(x.contiguous(), weight_C, bias_C, eps, beside)
    pixels = functional.layer_norm(x, weight_C.shape, weight_C, bias_C, eps)
    maps = pixels.transpose(2, 3).reshape(*wanted, len(weight_C))
    return maps if beside_BHWE is None else torch.cat([maps, beside_BHWE], dim=-1)


def _check(
    x_BHWC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    factor: int,
    beside_BHWE: Tensor | None,
    wanted: tuple[int, int, int],
) -> None:
    fits = weight_C.shape == bias_C.shape == (x_BHWC.shape[-1] // factor**2,)
    fits = fits and x_BHWC.shape[-1] % factor**2 == 0
    if not fits or (beside_BHWE is not None and beside_BHWE.shape[:-1] != wanted):
        beside = None if beside_BHWE is None else tuple(beside_BHWE.shape)
        raise ShapeError(
            f"x must be (B, H, W, {factor**2} C), weight and bias (C,), and the map beside it "
            f"(B, {factor} H, {factor} W, E) or None, got x {tuple(x_BHWC.shape)}, weight "
            f"{tuple(weight_C.shape)}, bias {tuple(bias_C.shape)} and {beside}"
        )
