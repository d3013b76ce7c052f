"""The recurrence h = a h + b over one block of all paths, forwards and backwards in time.

Legend: B batch, D channels, K paths, N states; S steps of Q chunks make a block. A block is
(K, S, Q, B, N, D): the slice of one step holds that step of all chunks. Chunks run side by side
first without what flows into them, then chunk after chunk hands its end on, then again with it.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Flow(NamedTuple):
    """What flows into each chunk (K, Q, B, N, D), and what flows out of the block."""

    into: Tensor
    carry: Tensor


def flow_forward(updates: Tensor, decay: Tensor, whole: Tensor, carry: Tensor) -> Flow:
    """Return the states before each chunk, and the one after the last chunk.

    Args:
        updates: b, (K, S, Q, B, N, D).
        decay: a, of the same shape.
        whole: Product of a over each chunk, (K, Q, B, N, D).
        carry: State before the block, (K, B, N, D).
    """
    first, *rest = updates.unbind(1)
    local = first.clone()
    for update, factor in zip(rest, decay.unbind(1)[1:], strict=True):
        torch.addcmul(update, factor, local, out=local)
    into = torch.empty_like(local)
    for chunk, end, factor in zip(into.unbind(1), local.unbind(1), whole.unbind(1), strict=True):
        chunk.copy_(carry)
        carry = torch.addcmul(end, factor, carry)
    return Flow(into, carry)


def run_forward(updates: Tensor, decay: Tensor, into: Tensor) -> Tensor:
    """Turn updates into states, in place, and return them."""
    state = into
    for update, factor in zip(updates.unbind(1), decay.unbind(1), strict=True):
        state = torch.addcmul(update, factor, state, out=update)
    return updates


def flow_backward(adjoints: Tensor, decay: Tensor, whole: Tensor, carry: Tensor) -> Flow:
    """Return what flows back into the end of each chunk, and out of the first chunk.

    Args:
        adjoints: Gradient of each state by its own output, (K, S, Q, B, N, D).
        decay: a, of the same shape.
        whole: Product of a over each chunk, (K, Q, B, N, D).
        carry: Gradient of the state after the block, (K, B, N, D).
    """
    *rest, last = adjoints.unbind(1)
    first_decay, *decays = decay.unbind(1)
    local = last.clone()
    for adjoint, factor in zip(reversed(rest), reversed(decays), strict=True):
        torch.addcmul(adjoint, factor, local, out=local)
    local *= first_decay
    into = torch.empty_like(local)
    chunks = zip(into.unbind(1), local.unbind(1), whole.unbind(1), strict=True)
    for chunk, start, factor in reversed(list(chunks)):
        chunk.copy_(carry)
        carry = torch.addcmul(start, factor, carry)
    return Flow(into, carry)


def run_backward(adjoints: Tensor, decay: Tensor, into: Tensor) -> Tensor:
    """Turn the gradients by own outputs into those of the states, in place, and return them."""
    *rest, last = adjoints.unbind(1)
    later = last.add_(into)
    for adjoint, factor in zip(reversed(rest), reversed(decay.unbind(1)[1:]), strict=True):
        later = torch.addcmul(adjoint, factor, later, out=adjoint)
    return adjoints
