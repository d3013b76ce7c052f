"""The backward pass of the torch backend: from the last block of the paths to the first.

Legend: B batch, L pixels, D channels, K paths, N states, R rank of dt; S steps of Q chunks make
a block, M = S Q B rows. README.md derives the pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvmh.ops._blocks import Block, Maps, new_rows, sum_states, to_map
from cvmh.ops._recurrence import flow_backward, run_backward, run_forward


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What the forward pass leaves for the backward pass.

    Attributes:
        into: Of each block the states before its chunks, (K, Q, B, N, D).
        steps: Of each block dt after weight, bias and softplus, (K, M, D).
    """

    into: list[Tensor]
    steps: list[Tensor]


class Gradients:
    """The gradients of all inputs: rows in path order, sums in the layout of the parameters."""

    def __init__(self, maps: Maps):
        plan, dtype = maps.plan, maps.dtype
        num_paths, num_states, num_channels = maps.A_KND.shape
        self.maps = maps
        self.x = new_rows(plan, num_channels, dtype)
        self.dt = new_rows(plan, maps.dt.shape[-1], dtype)
        self.B = new_rows(plan, num_states, dtype)
        self.C = new_rows(plan, num_states, dtype)
        self.A_KND = torch.zeros_like(maps.A_KND)
        self.D = maps.A_KND.new_zeros(num_paths, num_channels)
        self.gap_dt = torch.zeros_like(self.D)
        # Where the decay has steps of its own, the gradient of the exponent is theirs, not dt's.
        self.decay_dt = None if maps.decay_dt is None else new_rows(plan, num_channels, dtype)
        self.dt_bias = torch.zeros_like(self.D)
        self.dt_weight = self.D.new_zeros(num_paths, maps.dt.shape[-1], num_channels)

    def of_inputs(self) -> tuple[Tensor | None, ...]:
        """Return them in the shapes and the order of the arguments of a scan."""
        plan = self.maps.plan
        return (
            to_map(self.x, plan, merge=True),
            to_map(self.dt, plan, merge=False),
            self.A_KND.transpose(1, 2),
            to_map(self.B, plan, merge=False),
            to_map(self.C, plan, merge=False),
            *(self.D, self.gap_dt),
            None if self.decay_dt is None else to_map(self.decay_dt, plan, merge=False),
            *(self.dt_bias, self.dt_weight),
        )


def propagate(maps: Maps, saved: Saved, grad: Tensor, *, merge: bool) -> Gradients:
    """Return the gradients, given that of the output, (B, L, D) or unmerged (B, K, L, D)."""
    plan, gradients = maps.plan, Gradients(maps)
    num_states, num_channels = maps.A_KND.shape[1:]
    carry = grad.new_zeros(
        plan.num_paths, plan.num_batch, num_states, num_channels, dtype=maps.dtype
    )
    for index in range(plan.num_blocks - 1, -1, -1):
        block = maps.read(index, saved.steps[index])
        dy = maps.gather(grad, index, per_path=not merge)
        decay, into = plan.by_step(block.decay), saved.into[index]
        updates = (block.dt * block.x)[:, :, None] * block.B
        states = run_forward(plan.by_step(updates), decay, into)
        adjoints = plan.by_step(dy[:, :, None] * block.C)
        ends, carry = flow_backward(adjoints, decay, maps.chunk_decay(block), carry)
        run_backward(adjoints, decay, ends)

        # Times the state before, the decay becomes a h, whose product with the gradient of h is
        # the gradient of the exponent A G.
        decay[:, 1:].mul_(states[:, :-1])
        decay[:, 0].mul_(into)
        flat = adjoints.view_as(block.decay)
        exponent = block.decay.mul_(flat)
        _store(gradients, index, block, dy, states.view_as(flat), flat, exponent)
    return gradients


def _store(
    gradients: Gradients,
    index: int,
    block: Block,
    dy: Tensor,
    states: Tensor,
    adjoints: Tensor,
    exponent: Tensor,
) -> None:
    """Add what one block contributes; dy is (K, M, D), the last three are (K, M, N, D)."""
    maps, plan = gradients.maps, gradients.maps.plan
    dx = plan.split(gradients.x)[index]
    torch.sum(states.mul_(dy[:, :, None]), dim=-1, out=plan.split(gradients.C)[index])
    gradients.A_KND.add_((exponent * block.decay_dt[:, :, None]).sum(dim=1))
    step = plan.blank_padding(sum_states(exponent, maps.A_KND[:, None]), index)
    if plan.gap is not None:
        gradients.gap_dt.add_((step * plan.gap[index]).sum(dim=1))
    if gradients.decay_dt is not None:
        plan.split(gradients.decay_dt)[index].copy_(step)
        step.zero_()
    through_input = sum_states(adjoints, block.B)
    torch.mul(through_input, block.dt, out=dx)
    if maps.D is not None:
        dx.addcmul_(dy, maps.D[:, None])
        gradients.D.add_((dy * block.x).sum(dim=1))
    step.addcmul_(through_input, block.x)
    adjoints.mul_((block.dt * block.x)[:, :, None])
    torch.sum(adjoints, dim=-1, out=plan.split(gradients.B)[index])
    _store_step(gradients, index, block.dt, step)


def _store_step(gradients: Gradients, index: int, dt: Tensor, grad: Tensor) -> None:
    """Carry the gradient of dt (K, M, D) back through softplus, bias and weight."""
    maps = gradients.maps
    out = maps.plan.split(gradients.dt)[index]
    if maps.dt_softplus:
        # The slope of softplus is 1 - exp(-softplus).
        grad = grad.mul_(torch.expm1(dt.neg()).neg_())
    if maps.dt_bias is not None:
        gradients.dt_bias.add_(grad.sum(dim=1))
    if maps.dt_weight is None:
        out.copy_(grad)
        return
    low_rank = maps.gather(maps.dt, index)
    gradients.dt_weight.add_(torch.bmm(low_rank.transpose(1, 2), grad))
    torch.bmm(grad, maps.dt_weight.transpose(1, 2), out=out)
