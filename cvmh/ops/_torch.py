"""The selective scan in plain torch operators, block by block, with its own backward.

Legend: B batch, L pixels, D channels, K paths, N states. README.md derives both passes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cvmh.ops._blocks import Maps, new_rows, sum_states, to_map
from cvmh.ops._chunks import plan_chunks
from cvmh.ops._gradients import Saved, propagate
from cvmh.ops._recurrence import flow_forward, run_forward
from cvmh.ops.arguments import ScanArguments, no_autocast


def scan_torch(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, fast on any device, differentiable once.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt, or
    decay_dt.
    State, decay and sums are float32, or float64 if any input is.

    Returns:
        (B, L, D) if merged, else (B, K, L, D), zero where no path comes by.
    """
    num_channels, num_states = arguments.A.shape[1:]
    plan = plan_chunks(
        arguments.paths,
        arguments.gap,
        length=arguments.x.shape[1],
        lanes=num_channels * num_states,
        dtype=arguments.accumulator,
    )
    return _Scan.apply(
        *(arguments.x, arguments.dt, arguments.A, arguments.B, arguments.C),
        *(arguments.D, arguments.gap_dt, arguments.decay_dt),
        *(arguments.dt_bias, arguments.dt_weight),
        *(plan, arguments.dt_softplus, arguments.merge, arguments.accumulator),
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, plan, softplus, merge, dtype = inputs
        ctx.save_for_backward(*tensors)
        ctx.plan, ctx.softplus, ctx.merge, ctx.dtype = plan, softplus, merge, dtype
        with no_autocast(plan.rows.device):
            ctx.saved = Saved(into=[], steps=[])
            keep = ctx.saved if any(ctx.needs_input_grad) else None
            return to_map(_scan_blocks(_maps(tensors, ctx), keep), plan, merge=merge)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with no_autocast(grad.device):
            maps = _maps(ctx.saved_tensors, ctx)
            results = propagate(maps, ctx.saved, grad, merge=ctx.merge).of_inputs()
            typed = (
                None if given is None or result is None else result.to(given.dtype)
                for given, result in zip(ctx.saved_tensors, results, strict=True)
            )
            return (*typed, None, None, None, None)


def _maps(tensors: Sequence[Any], ctx: Any) -> Maps:
    x, dt, A, B, C, D, gap_dt, decay_dt, *small = tensors
    D, gap_dt, dt_bias, dt_weight = (
        None if one is None else one.to(ctx.dtype) for one in (D, gap_dt, *small)
    )
    return Maps(
        x=x,
        dt=dt,
        A_KND=A.to(ctx.dtype).transpose(1, 2).contiguous(),
        B=B,
        C=C,
        D=D,
        gap_dt=gap_dt,
        decay_dt=decay_dt,
        dt_bias=dt_bias,
        dt_weight=dt_weight,
        dt_softplus=ctx.softplus,
        plan=ctx.plan,
    )


def _scan_blocks(maps: Maps, keep: Saved | None) -> Tensor:
    """Return the outputs of the rows of all blocks, and keep what the backward pass needs."""
    plan = maps.plan
    num_states, num_channels = maps.A_KND.shape[1:]
    rows = new_rows(plan, num_channels, maps.dtype)
    carry = rows.new_zeros(plan.num_paths, plan.num_batch, num_states, num_channels)
    for index, out in enumerate(plan.split(rows)):
        block = maps.read(index, maps.steps(index))
        decay = plan.by_step(block.decay)
        updates = plan.by_step((block.dt * block.x)[:, :, None] * block.B)
        into, carry = flow_forward(updates, decay, maps.chunk_decay(block), carry)
        states = run_forward(updates, decay, into)
        sum_states(states.view_as(block.decay), block.C, out=out)
        if maps.D is not None:
            out.addcmul_(block.x, maps.D[:, None])
        if keep is not None:
            keep.into.append(into)
            keep.steps.append(block.dt)
    return rows
