"""MFMSBlock: fuse encoder and decoder features by a multi-frequency, multi-scale gate.

Cao et al. (the CVMH-UNet paper), equations 5-10 and Figure 4. The 2D-DCT basis is FcaNet's,
the three poolings MADGNet's, the gate and the point-wise branch AFF's. B batch, C channels,
H W map, K frequencies.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import PointwiseConv, to_channels_last
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.ops.dct import dct_basis, top_frequencies
from cvmh.ops.pooling import pool_under_weights

# FcaNet's map sizes at strides 4, 8, 16 and 32 of a 224-pixel image, for dct_size="fixed".
FIXED_SIZES = (56, 28, 14, 7)


def eca_kernel_size(channels: int) -> int:
    """Return the odd kernel nearest to ``|log2(C) / 2 + 1 / 2|`` (ECA, alpha 2, beta 1)."""
    size = int(abs(math.log2(channels) / 2 + 0.5))
    return size if size % 2 else size + 1


class PointwiseBranch(nn.Sequential):
    """BN(PW(ReLU(BN(PW(x))))) with a bottleneck of C / 4: the local branch of AFF's attention."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        hidden = max(1, channels // reduction)
        super().__init__(
            PointwiseConv(channels, hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            PointwiseConv(hidden, channels, bias=False),
            nn.BatchNorm2d(channels),
        )


class AdaptiveConv1d(nn.Conv1d):
    """Mix a channel vector with its neighbours; the kernel grows with log2 C (ECA)."""

    def __init__(self, channels: int) -> None:
        size = eca_kernel_size(channels)
        super().__init__(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Map (B, C) to (B, C)."""
        return super().forward(x_BC[:, None])[:, 0]


class Bottleneck(nn.Sequential):
    """Mix a channel vector by two Linear layers with C / 16 between (the paper's FC variant)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        hidden = max(1, channels // reduction)
        super().__init__(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
        )


class MultiFrequencyBranch(nn.Module):
    """Pool a map under K fixed DCT bases by mean, maximum and minimum, and mix the channels.

    Equations 6-10 as Figure 4b shows them: multiply by each basis, pool three ways, average over
    the bases, pass each of the three vectors through the mixer, add.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_frequencies: int = 16,
        mixer: str = "conv1d",
        shared_mixer: bool = True,
        fixed_size: int | None = None,
        orthonormal: bool = True,
    ) -> None:
        super().__init__()
        make = {"conv1d": AdaptiveConv1d, "fc": Bottleneck}[mixer]
        self.mixers = nn.ModuleList(make(channels) for _ in range(1 if shared_mixer else 3))
        self.num_frequencies, self.fixed_size = num_frequencies, fixed_size
        self.orthonormal = orthonormal

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, C, H, W) to (B, C)."""
        if self.fixed_size is not None:
            x_BCHW = functional.adaptive_avg_pool2d(x_BCHW, self.fixed_size)
        height, width = grid.size_of(x_BCHW)
        frequencies = top_frequencies(self.num_frequencies, height, width)
        basis_KHW = dct_basis(frequencies, height, width, orthonormal=self.orthonormal)
        x_NHWC = to_channels_last(x_BCHW)
        pooled = pool_under_weights(
            grid.flatten(x_NHWC),
            grid.at_tokens(basis_KHW.to(x_BCHW.device).flatten(1).t()[None], x_NHWC)[:, 0],
            grid.kept_tokens(x_NHWC),
        )
        last = len(self.mixers) - 1
        # Bases are float32 in networks of 16 bit too.
        vectors = (vector.to(x_BCHW.dtype) for vector in pooled)
        mixed = [self.mixers[min(i, last)](vector) for i, vector in enumerate(vectors)]
        return torch.stack(mixed).sum(0)


class MultiScaleBranch(nn.Module):
    """AFF's global branch: the point-wise bottleneck on the global average (no frequencies)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = PointwiseBranch(channels)

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, C, H, W) to (B, C)."""
        return self.pointwise(grid.mean(x_BCHW)[:, :, None, None])[:, :, 0, 0]


class MFMSBlock(nn.Module):
    """Select softly between encoder and decoder features: ``Z = W F + (1 - W) G``.

    ``W = sigmoid(global(F + G) + local(F + G))`` lies in (0, 1), so Z lies between F and G.
    """

    def __init__(self, channels: int, global_branch: nn.Module) -> None:
        super().__init__()
        self.global_branch = global_branch
        self.local_branch = PointwiseBranch(channels)

    def forward(self, encoder_BCHW: Tensor, decoder_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Fuse two maps (B, C, H, W) of the same shape to one."""
        both = encoder_BCHW + decoder_BCHW
        everywhere = grid.spread(self.global_branch(both, grid))
        gate = (everywhere + grid.run(self.local_branch, both)).sigmoid()
        return torch.lerp(decoder_BCHW, encoder_BCHW, gate)
