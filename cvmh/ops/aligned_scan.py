"""Selective scans over maps of which only some tokens are kept, by four ways to pass the others.

Legend: B batch, L tokens, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.errors import ConfigError, ShapeError
from cvmh.ops.arguments import (
    ScanArguments,
    all_shapes,
    check_arguments,
    expand_steps,
    no_autocast,
)
from cvmh.ops.selective_scan import selective_scan
from cvmh.ops.traversal import kept_tables

Alignment = Literal["gap", "delta", "none", "hold"]


def aligned_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    order: Tensor,
    keep: Tensor,
    alignment: Alignment = "gap",
    size: int | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_weight: Tensor | None = None,
    merge: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Return a selective scan into which only the kept tokens of each map put something.

    Where a path comes to a kept token with g dropped ones right before it, h is the state at the
    kept token before those, and dt0 the step of a zero token, softplus(dt_bias):

    * ``gap``: h = exp(A (dt + g dt0)) h + dt B x. Equals the complete scan over a map whose dropped
      tokens are zeros.
    * ``delta``: h = exp(A (dt + sum of their dt)) h + dt B x. Equals the complete scan with the
      true dt of all tokens and no input from dropped ones, and is run as that: it costs less than
      to write down the steps of all tokens and sum them over each gap.
    * ``none``: h = exp(A dt) h + dt B x. What is kept closes ranks. To hold the *state* over a gap
      comes to the same.
    * ``hold``: h = exp(A G) h + G B x, G = dt + g dt0. The *input* is held over the gap: right for
      what was not measured, as in irregular series, and not for what is empty.

    The last two are there to be compared with. Maps that hold kept tokens alone need no more than
    ``selective_scan`` with the order and the gap of ``kept_tables``.

    Args:
        x: Input (B, L, D).
        dt: Step sizes (B, K, L, D), or (B, K, L, R) if ``dt_weight`` is given.
        A: Decay rates (K, D, N), negative.
        B: Input weights (B, K, L, N).
        C: Output weights (B, K, L, N).
        D: Weights (K, D) of the input in the output.
        order: Complete paths (K, L): each visits every token once.
        keep: Boolean (B, L), true for tokens that stay. What others hold is read by ``delta`` only.
        alignment: Which of the four.
        size: Steps T that paths are padded to; those of the map that keeps most if None. Where it
            is given, nothing waits for the device, and tokens beyond it are dropped too.
            ``delta`` has no use for it.
        dt_bias: As of ``selective_scan``; so are the arguments behind it.

    Returns:
        (B, L, D) if merged, else (B, K, L, D); zero at dropped tokens.

    Raises:
        ConfigError: If the alignment is unknown.
        ShapeError: If shapes, dtypes or devices do not fit together.
        KernelError: As of ``selective_scan``.
    """
    if alignment not in get_args(Alignment):
        known = ", ".join(get_args(Alignment))
        raise ConfigError(f"alignment must be one of {known}, got {alignment!r}")
    whole = ScanArguments(
        x=x,
        dt=dt,
        A=A,
        B=B,
        C=C,
        D=D,
        order=order,
        dt_bias=dt_bias,
        dt_softplus=dt_softplus,
        dt_weight=dt_weight,
        merge=merge,
    )
    check_arguments(whole)
    if keep.dtype != torch.bool or keep.shape != x.shape[:2]:
        raise ShapeError(
            f"keep must be a boolean {tuple(x.shape[:2])}, got {tuple(keep.shape)} of "
            f"{keep.dtype}{all_shapes(whole.tensors)}"
        )
    if alignment == "delta":
        return _scan_all(whole, keep, backend)
    pixels = torch.arange(x.shape[1], device=x.device).expand_as(keep)
    tables = kept_tables(order, keep, size=size, place=pixels)
    kept = replace(whole, order=tables.order)
    if alignment == "gap":
        kept = replace(kept, gap=tables.gap, gap_dt=_zero_step(kept))
    elif alignment == "hold":
        kept = _hold_input(kept, tables.gap)
    return selective_scan(**vars(kept), backend=backend)


def _scan_all(arguments: ScanArguments, keep: Tensor, backend: str) -> Tensor:
    """Scan all tokens, of which the dropped ones put nothing in and get nothing out."""
    x = arguments.x.where(keep[..., None], 0)
    y = selective_scan(**vars(replace(arguments, x=x)), backend=backend)
    return y.where((keep if arguments.merge else keep[:, None])[..., None], 0)


def _zero_step(arguments: ScanArguments) -> Tensor:
    """Return the step (K, D) of a token whose projections are zero."""
    bias = arguments.dt_bias
    if bias is None:
        bias = arguments.A.new_zeros(arguments.A.shape[:2])
    bias = bias.to(arguments.accumulator)
    return functional.softplus(bias) if arguments.dt_softplus else bias


def _hold_input(arguments: ScanArguments, gap: Tensor) -> ScanArguments:
    """Return the scan whose steps have the length of their gaps."""
    order, length = arguments.paths, arguments.x.shape[1]
    # Padding falls into a spare last column.
    target = torch.where(order < 0, length, order)
    leapt = gap.new_zeros(*order.shape[:2], length + 1).scatter(2, target, gap)[..., :length]
    with no_autocast(arguments.x.device):
        dt = expand_steps(arguments, arguments.dt.to(arguments.accumulator))
        dt = dt + leapt[..., None] * _zero_step(arguments)[:, None]
    return replace(arguments, dt=dt, dt_bias=None, dt_weight=None, dt_softplus=False)
