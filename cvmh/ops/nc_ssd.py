"""Non-causal state space duality: a mixer in which every pixel reads one state of the whole map.

Legend: B batch, L pixels, D channels, H heads, P = D / H channels of a head, N states.

A scan without an order: where the selective scan lets a state decay along a path, here each pixel
adds to the one state with a weight of its own, and every pixel reads the same sum (VSSD). So no
path is needed, only two matrix products for each image.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops.arguments import (
    accumulator_of,
    all_shapes,
    check_decay,
    check_layouts,
    have_values,
    no_autocast,
)

# What each tensor must look like in the letters of the legend.
LAYOUTS = {"x": "BLD", "dt": "BLH", "A": "H", "B": "BLN", "C": "BLN", "D": "H", "dt_bias": "H"}


def nc_ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    positive: bool = True,
    normalise: bool = False,
) -> Tensor:
    """Return non-causal state space duality over the pixels of a map.

    For each head, with weights m = dt |A|: S = sum over L of m B x, y = sum over N of C S + D x.

    The tensors may have any floating dtype. Weights, state and sums are float32 (float64 if any
    input is), and so is the result: 16-bit inputs give a float32 output, and autocast changes
    nothing. Differentiable in every argument, any number of times.

    Args:
        x: Input (B, L, D); a head is P channels in a row.
        dt: Step sizes (B, L, H).
        A: Decay rates (H), negative; pass -exp(A_log).
        B: Input weights (B, L, N), the same for all heads.
        C: Output weights (B, L, N), the same for all heads.
        D: Weights (H) of the input in the output.
        dt_bias: Added to dt, (H).
        dt_softplus: Whether dt passes a softplus, after the bias.
        positive: Whether the weights are dt |A|, as in the published networks, or dt A.
        normalise: Whether to divide the weights by the sum of their sizes over L. Without it the
            state grows with the map, so that results depend on its size.

    Returns:
        (B, L, D).

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit together.
        KernelError: If A is not negative (looked at on the CPU only).
    """
    given = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias}
    tensors = {name: value for name, value in given.items() if value is not None}
    sizes = check_layouts(tensors, LAYOUTS)
    if sizes["D"] % sizes["H"] != 0:
        raise ShapeError(
            f"D={sizes['D']} must be a multiple of H={sizes['H']}{all_shapes(tensors)}"
        )
    if have_values(tensors):
        check_decay(A, tensors)
    dtype = accumulator_of(tensors)
    wide = {name: value.to(dtype) for name, value in tensors.items()}
    weights = _weights(wide, dt_softplus=dt_softplus, positive=positive, normalise=normalise)
    with no_autocast(x.device):
        return _mix(wide, weights)


def _weights(
    tensors: dict[str, Tensor], *, dt_softplus: bool, positive: bool, normalise: bool
) -> Tensor:
    """Return m (B, L, H)."""
    dt = tensors["dt"]
    if "dt_bias" in tensors:
        dt = dt + tensors["dt_bias"]
    if dt_softplus:
        dt = functional.softplus(dt)
    weights = dt * (-tensors["A"] if positive else tensors["A"])
    if normalise:
        sizes = weights.abs().sum(dim=1, keepdim=True)
        # A map whose weights are all zero keeps them.
        weights = weights / torch.where(sizes > 0, sizes, 1)
    return weights


def _mix(tensors: dict[str, Tensor], weights: Tensor) -> Tensor:
    x, num_heads = tensors["x"], weights.shape[-1]
    by_head = x.unflatten(-1, (num_heads, x.shape[-1] // num_heads))
    # B and C are shared, so that the heads lie side by side in one product.
    inputs = (by_head * weights[..., None]).flatten(-2)
    y = tensors["C"] @ (tensors["B"].transpose(1, 2) @ inputs)
    if "D" in tensors:
        y = y + (by_head * tensors["D"][:, None]).flatten(-2)
    return y
