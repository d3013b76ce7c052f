"""Means and extremes of a map under several weights: what the multi-frequency gate looks at.

Legend: B tiles, L tokens of a tile, C channels, K weights of a token.
"""

import torch
from torch import Tensor

from cvmh.errors import ShapeError
from cvmh.ops._suited import suits_numba


def pool_under_weights(
    x_BLC: Tensor, weight_BLK: Tensor, is_kept_BL: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, maximum and minimum over tokens of ``x w_k``, averaged over k: (B, C) each.

    Kernels of numba run it on the CPU where no gradient is wanted and all is float32: they read
    the map once and write no products. Else it is plain torch, differentiable. Where a value is
    not finite, only the mean is sure to show it.

    Args:
        x_BLC: Tokens (B, L, C).
        weight_BLK: Weights (B or 1, L, K), at least one; 1: the same for all tiles.
        is_kept_BL: Which tokens count, boolean (B, L); None: all. A tile without any gets zeros.

    Raises:
        ShapeError: If shapes do not fit together, or there are no tokens or no weights.
    """
    _check(x_BLC, weight_BLK, is_kept_BL)
    if suits_numba(x_BLC, weight_BLK):
        from cvmh.ops._numba_pooling import run_pooling

        # The mean is linear in the weights, so all K means are one, under their average.
        average_BL1 = weight_BLK.mean(2, keepdim=True)
        mean, high, low = run_pooling(
            x_BLC.contiguous(),
            torch.cat([average_BL1, weight_BLK], dim=2).contiguous(),
            None if is_kept_BL is None else is_kept_BL.int().contiguous(),
        )
        return mean, high, low
    return _pool(x_BLC, weight_BLK, is_kept_BL)


def _pool(
    x_BLC: Tensor, weight_BLK: Tensor, is_kept_BL: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    average, weights = weight_BLK.mean(2, keepdim=True), weight_BLK.split(1, dim=2)
    products = (x_BLC * weight for weight in weights)
    if is_kept_BL is None:
        found = [(product.amax(1), product.amin(1)) for product in products]
        mean = (x_BLC * average).mean(1)
    else:
        kept = is_kept_BL[..., None]
        is_any = kept.any(1)
        found = [
            (
                product.where(kept, -torch.inf).amax(1).where(is_any, 0),
                product.where(kept, torch.inf).amin(1).where(is_any, 0),
            )
            for product in products
        ]
        mean = (x_BLC * average).where(kept, 0).sum(1) / kept.sum(1).clamp(min=1)
    highs, lows = zip(*found, strict=True)
    return mean, sum(highs) / len(weights), sum(lows) / len(weights)


def _check(x_BLC: Tensor, weight_BLK: Tensor, is_kept_BL: Tensor | None) -> None:
    fits = x_BLC.dim() == weight_BLK.dim() == 3 and x_BLC.shape[1] == weight_BLK.shape[1]
    fits = fits and weight_BLK.shape[0] in (1, x_BLC.shape[0])
    fits = fits and weight_BLK.shape[1] > 0 and weight_BLK.shape[2] > 0
    if not fits or (is_kept_BL is not None and is_kept_BL.shape != x_BLC.shape[:2]):
        kept = None if is_kept_BL is None else tuple(is_kept_BL.shape)
        raise ShapeError(
            "x must be (B, L, C), weight (B or 1, L, K) with L and K at least 1, and is_kept (B, "
            f"L) or None, got x {tuple(x_BLC.shape)}, weight {tuple(weight_BLK.shape)} and "
            f"is_kept {kept}"
        )
