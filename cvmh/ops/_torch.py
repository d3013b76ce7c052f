"""The selective scan in plain torch operators, block by block, with its own backward.

Legend: B batch, L pixels, D channels, K paths, N states, R rank of dt; S steps of Q chunks make
a block, M = S Q B rows. README.md derives both passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cvmh.ops._blocks import Block, Maps, new_rows, to_map
from cvmh.ops._chunks import ChunkPlan, plan_chunks
from cvmh.ops.arguments import ScanArguments


def scan_torch(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, fast on any device, differentiable once.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt.
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
    given = arguments
    return _Scan.apply(
        *(given.x, given.dt, given.A, given.B, given.C),
        *(given.D, given.gap_dt, given.dt_bias, given.dt_weight),
        *(plan, given.dt_softplus, given.merge, given.accumulator),
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, plan, softplus, merge, dtype = inputs
        ctx.save_for_backward(*tensors)
        ctx.plan, ctx.softplus, ctx.merge, ctx.dtype = plan, softplus, merge, dtype
        with torch.autocast(plan.rows.device.type, enabled=False):
            rows, ctx.starts = _forward(_maps(tensors, ctx))
            return to_map(rows, plan, merge=merge)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            gradients = _Gradients.of(_maps(ctx.saved_tensors, ctx))
            _backward(gradients, ctx.starts, grad, merge=ctx.merge)
            results = gradients.as_given()
        typed = (
            None if given is None else result.to(given.dtype)
            for given, result in zip(ctx.saved_tensors, results, strict=True)
        )
        return (*typed, None, None, None, None)


def _maps(tensors: Sequence[Tensor | None], ctx: Any) -> Maps:
    x, dt, A, B, C, *small = tensors
    D, gap_dt, dt_bias, dt_weight = (None if one is None else one.to(ctx.dtype) for one in small)
    return Maps(
        x=x,
        dt=dt,
        A_KND=A.to(ctx.dtype).transpose(1, 2).contiguous(),
        B=B,
        C=C,
        D=D,
        gap_dt=gap_dt,
        dt_bias=dt_bias,
        dt_weight=dt_weight,
        dt_softplus=ctx.softplus,
        plan=ctx.plan,
    )


def _forward(maps: Maps) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs of all rows, and of each block the states before its chunks."""
    plan = maps.plan
    num_states, num_channels = maps.A_KND.shape[1:]
    rows = new_rows(plan, num_channels, maps.dtype)
    carry = rows.new_zeros(plan.num_paths, plan.num_batch, num_states, num_channels)
    all_starts = []
    for index, out in enumerate(plan.split(rows)):
        block = maps.read(index)
        updates = plan.by_step((block.dt * block.x)[:, :, None] * block.B)
        starts, carry = _chunk_starts(maps, block, updates, carry)
        states = _run(updates, plan.by_step(block.decay), starts)
        all_starts.append(starts)
        _sum_states(states.view(block.decay.shape), block.C, out=out)
        if maps.D is not None:
            out.addcmul_(block.x, maps.D[:, None])
    return rows, all_starts


def _sum_states(values: Tensor, factors: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return the products of (K, M, N, D) and (K, M or 1, N, 1 or D), summed over N."""
    if values.shape[2] == 1:
        return torch.mul(values[:, :, 0], factors[:, :, 0], out=out)
    return torch.sum(values * factors, dim=2, out=out)


def _chunk_starts(
    maps: Maps, block: Block, updates: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the states before each chunk (K, Q, B, N, D) and the one after the last chunk."""
    decay = maps.plan.by_step(block.decay)
    local = updates[:, 0].clone()
    for step in range(1, updates.shape[1]):
        torch.addcmul(updates[:, step], decay[:, step], local, out=local)
    whole = maps.chunk_decay(block)
    starts = torch.empty_like(local)
    for chunk in range(starts.shape[1]):
        starts[:, chunk] = carry
        carry = torch.addcmul(local[:, chunk], whole[:, chunk], carry)
    return starts, carry


def _run(updates: Tensor, decay: Tensor, starts: Tensor) -> Tensor:
    """Turn updates (K, S, Q, B, N, D) into states, in place, and return them."""
    state = starts
    for step in range(updates.shape[1]):
        state = updates[:, step].addcmul_(decay[:, step], state)
    return updates


def _chunk_ends(maps: Maps, block: Block, adjoints: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """Return what flows back into the last step of each chunk, and out of the first chunk."""
    decay = maps.plan.by_step(block.decay)
    local = adjoints[:, -1].clone()
    for step in range(adjoints.shape[1] - 2, -1, -1):
        torch.addcmul(adjoints[:, step], decay[:, step + 1], local, out=local)
    local *= decay[:, 0]
    whole = maps.chunk_decay(block)
    ends = torch.empty_like(local)
    for chunk in range(ends.shape[1] - 1, -1, -1):
        ends[:, chunk] = carry
        carry = torch.addcmul(local[:, chunk], whole[:, chunk], carry)
    return ends, carry


def _run_back(adjoints: Tensor, decay: Tensor, ends: Tensor) -> Tensor:
    """Turn C dy (K, S, Q, B, N, D) into the gradients of the states, in place."""
    adjoints[:, -1] += ends
    for step in range(adjoints.shape[1] - 2, -1, -1):
        adjoints[:, step].addcmul_(decay[:, step + 1], adjoints[:, step + 1])
    return adjoints


@dataclass(frozen=True, kw_only=True)
class _Gradients:
    """Storage for the gradients: rows in path order, sums in the layout of their parameters."""

    maps: Maps
    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    A_KND: Tensor
    D: Tensor
    gap_dt: Tensor
    dt_bias: Tensor
    dt_weight: Tensor

    @classmethod
    def of(cls, maps: Maps) -> "_Gradients":
        plan, dtype = maps.plan, maps.dtype
        num_paths, num_states, num_channels = maps.A_KND.shape
        sums = maps.A_KND.new_zeros(num_paths, num_channels)
        return cls(
            maps=maps,
            x=new_rows(plan, num_channels, dtype),
            dt=new_rows(plan, maps.dt.shape[-1], dtype),
            B=new_rows(plan, num_states, dtype),
            C=new_rows(plan, num_states, dtype),
            A_KND=torch.zeros_like(maps.A_KND),
            D=sums,
            gap_dt=sums.clone(),
            dt_bias=sums.clone(),
            dt_weight=sums.new_zeros(num_paths, maps.dt.shape[-1], num_channels),
        )

    def as_given(self) -> tuple[Tensor, ...]:
        """Return them in the shapes and order of the inputs."""
        plan = self.maps.plan
        return (
            to_map(self.x, plan, merge=True),
            to_map(self.dt, plan, merge=False),
            self.A_KND.transpose(1, 2),
            to_map(self.B, plan, merge=False),
            to_map(self.C, plan, merge=False),
            *(self.D, self.gap_dt, self.dt_bias, self.dt_weight),
        )


def _backward(
    gradients: _Gradients, all_starts: list[Tensor], grad: Tensor, *, merge: bool
) -> None:
    """Fill the gradients, from the last block to the first."""
    maps, plan = gradients.maps, gradients.maps.plan
    num_states, num_channels = maps.A_KND.shape[1:]
    carry = maps.A_KND.new_zeros(plan.num_paths, plan.num_batch, num_states, num_channels)
    parts = [plan.split(rows) for rows in (gradients.x, gradients.dt, gradients.B, gradients.C)]
    for index in range(plan.num_blocks - 1, -1, -1):
        block = maps.read(index)
        dy = maps.gather(grad, index, per_path=not merge)
        decay = plan.by_step(block.decay)
        input_KMD = block.dt * block.x
        states = _run(plan.by_step(input_KMD[:, :, None] * block.B), decay, all_starts[index])
        adjoints = plan.by_step(dy[:, :, None] * block.C)
        ends, carry = _chunk_ends(maps, block, adjoints, carry)
        adjoints = _run_back(adjoints, decay, ends)

        dx, ddt, dB, dC = (part[index] for part in parts)
        flat = adjoints.view(block.decay.shape)
        torch.sum(states.view(block.decay.shape) * dy[:, :, None], dim=-1, out=dC)
        torch.sum(flat * input_KMD[:, :, None], dim=-1, out=dB)
        # From here decay holds the gradient of A G: that of the decay, times the decay.
        decay[:, 1:].mul_(states[:, :-1])
        decay[:, 0].mul_(all_starts[index])
        exponent = block.decay.mul_(flat)
        dG = plan.blank_padding(_sum_states(exponent, maps.A_KND[:, None]), index)
        dinput = _sum_states(flat, block.B)
        torch.mul(dinput, block.dt, out=dx)
        if maps.D is not None:
            dx.addcmul_(dy, maps.D[:, None])
            gradients.D.add_((dy * block.x).sum(dim=1))
        gradients.A_KND.add_((exponent * block.decay_dt[:, :, None]).sum(dim=1))
        if plan.gap is not None:
            gradients.gap_dt.add_((dG * plan.gap[index]).sum(dim=1))
        _add_step_gradient(gradients, block, dG.addcmul_(dinput, block.x), out=ddt)


def _add_step_gradient(gradients: _Gradients, block: Block, step: Tensor, *, out: Tensor) -> None:
    """Carry the gradient of dt (K, M, D) through softplus, bias and weight."""
    maps = gradients.maps
    if maps.dt_softplus:
        # The slope of softplus is 1 - exp(-softplus).
        step = step.mul_(torch.expm1(block.dt.neg()).neg_())
    if maps.dt_bias is not None:
        gradients.dt_bias.add_(step.sum(dim=1))
    if maps.dt_weight is None:
        out.copy_(step)
        return
    gradients.dt_weight.add_(torch.bmm(block.dt_raw.transpose(1, 2), step))
    torch.bmm(step, maps.dt_weight.transpose(1, 2), out=out)
