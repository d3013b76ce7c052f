"""Batch norms over the batches of all processes, as one process with all of them has it.

torch has the same for GPUs only. The names of parameters and buffers stay those of BatchNorm, so
weights go from one to the other.
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvmh.train.sums import count_processes, sum_over_processes


class JoinedBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance in training are those of all processes' batches.

    Two sums, first of values, then of squared distances from the mean, because the difference of
    a mean square and a squared mean would lose digits where the mean is large.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, ...) to the same shape."""
        if not self.training:
            return super().forward(input)
        over = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        # Half precision does not bear sums of many pixels.
        values = input if input.dtype == torch.float64 else input.float()
        count = values.new_tensor([input.numel() / input.shape[1]])
        sums = sum_over_processes(torch.cat([values.sum(over), count]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = values - mean.view(shape)
        variance = sum_over_processes((centred * centred).sum(over)) / count
        self._track(mean.detach(), variance.detach(), float(count.detach()))
        factor = (variance + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        result = centred * factor.view(shape)
        if self.bias is not None:
            result = result + self.bias.view(shape)
        return result.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        if rate is None:
            rate = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take maps of any number of dimensions."""


def join_batch_norms(network: nn.Module, *, uses_gpu: bool) -> nn.Module:
    """Return the network with its batch norms joined over processes; parameters stay the same."""
    if uses_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, _BatchNorm):
        return _joined(network)
    for name, child in network.named_children():
        setattr(network, name, join_batch_norms(child, uses_gpu=uses_gpu))
    return network


def share_statistics(network: nn.Module) -> None:
    """Give every process the buffers of the first: statistics that each took of its own batches."""
    if count_processes() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)


def _joined(norm: _BatchNorm) -> JoinedBatchNorm:
    joined = JoinedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    joined.weight, joined.bias = norm.weight, norm.bias
    joined.running_mean, joined.running_var = norm.running_mean, norm.running_var
    joined.num_batches_tracked = norm.num_batches_tracked
    return joined.train(norm.training)
