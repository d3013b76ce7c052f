"""A moving average of a network's weights, which validates and is kept in their place."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network whose ``update_parameters`` moves it towards the network.

    ``average = d average + (1 - d) weights`` with ``d = min(decay, (1 + t) / (10 + t))`` after
    ``t`` steps: the average reaches back a tenth of the run until the decay limits it, so that
    short runs gain too. Running statistics of batch norms are averaged alike, so that they fit
    the weights that they belong to; counters are copied. It is in eval mode and needs no gradient.
    """
    average = AveragedModel(network, multi_avg_fn=partial(_move, decay), use_buffers=True)
    return average.requires_grad_(False).eval()


@torch.no_grad()
def _move(decay: float, averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
    share = 1 - torch.clamp((1 + steps) / (10 + steps), max=decay)
    for average, weight in zip(averages, weights, strict=True):
        if average.is_floating_point():
            average.lerp_(weight, share.to(average.dtype))
        else:
            average.copy_(weight)
