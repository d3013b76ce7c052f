"""Sums over the processes of a run, through which gradients flow."""

from typing import Any

import torch
from torch import Tensor, distributed


def count_processes() -> int:
    """Return how many processes train together; 1 where no others were started."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of what every process gives, the same in each of them.

    Every process must call it at the same point. Its gradient is that of the sum of all processes'
    losses, so the mean over processes that DDP takes of gradients is that of one loss of all.
    """
    total: Tensor = _Sum.apply(tensor) if count_processes() > 1 else tensor
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return _summed(slope)


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
