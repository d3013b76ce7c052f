"""The CVSS block (HVSS in the journal version), which grows from the VSS block.

Cao et al., "Remote Sensing Image Segmentation Using Vision Mamba and Multi-Scale
Multi-Frequency Feature Fusion", section III and Figure 2. B batch, C channels, H W map.
"""

import torch
from torch import Tensor, nn

from cvmh.models.layers import (
    PointwiseConv,
    to_channels_first,
    to_channels_last,
)
from cvmh.models.mixer_block import Layer, MixerBlock
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.models.pruning.scores import Meter
from cvmh.models.stochastic_depth import StochasticDepth


class ChannelAttention(nn.Module):
    """Scale each channel by a sigmoid of its global average through a bottleneck of C / 16."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = PointwiseConv(channels, hidden)
        self.activation = nn.ReLU()
        self.excite = PointwiseConv(hidden, channels)

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        means = grid.spread(grid.mean(x_BCHW))
        return x_BCHW * self.excite(self.activation(self.squeeze(means))).sigmoid()


class SpatialAttention(nn.Module):
    """Scale each pixel by a sigmoid of a 7x7 convolution of its channel mean and maximum (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        summary = torch.cat(
            [x_BCHW.mean(dim=1, keepdim=True), x_BCHW.amax(dim=1, keepdim=True)], dim=1
        )
        return x_BCHW * grid.convolve(self.conv, summary).sigmoid()


class EFFN(nn.Module):
    """Multi-scale feed-forward: 1x1, then depth-wise 3x3 plus 5x5, then 1x1 (from CMTFNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.reduce = nn.Sequential(
            PointwiseConv(channels, hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
        )
        self.fine = _depthwise(hidden, 3)
        self.coarse = _depthwise(hidden, 5)
        self.expand = nn.Sequential(
            PointwiseConv(hidden, channels, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x_BCHW = grid.run(self.reduce, x_BCHW)
        scales = grid.run(self.fine, x_BCHW) + grid.run(self.coarse, x_BCHW)
        return grid.run(self.expand, scales)


class CVSSBlock(nn.Module):
    """Global scan branch plus local convolution branch, fused, then an E-FFN (equations 1-4).

    ``g = CA(CS(x))``, ``l = SA(Conv3x3(x))``, ``u = x + Conv1x1(LN(DWConv3x3(g + l)))``,
    ``y = u + E(u)``.
    """

    def __init__(self, channels: int, *, drop_path: float = 0.0, mixer: Layer) -> None:
        super().__init__()
        self.scan = MixerBlock(channels, mixer=mixer)
        self.channel_attention = ChannelAttention(channels)
        self.local = _depthwise(channels, 3)
        self.spatial_attention = SpatialAttention()
        self.fuse_depthwise = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels, bias=False
        )
        self.fuse_pointwise = PointwiseConv(channels, channels, bias=False)
        self.fuse_norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, channels)
        self.ffn = EFFN(channels)
        self.drop = StochasticDepth(drop_path)

    def forward(self, x_BHWC: Tensor, grid: Grid = WHOLE, meter: Meter | None = None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); the grid says which tokens these are.

        A meter is shown the scans.
        """
        x_BCHW = to_channels_first(x_BHWC)
        scanned = to_channels_first(self.scan(x_BHWC, grid, meter))
        everywhere = self.channel_attention(scanned, grid)
        nearby = self.spatial_attention(grid.run(self.local, x_BCHW), grid)
        fused = grid.convolve(self.fuse_depthwise, everywhere + nearby)
        fused = self.project(self.fuse_norm(to_channels_last(self.fuse_pointwise(fused))))
        x_BHWC = x_BHWC + self.drop(fused, grid)
        added = to_channels_last(self.ffn(to_channels_first(x_BHWC), grid))
        return x_BHWC + self.drop(added, grid)

    def steps(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the mean step that the scans take at each token, (B, H, W), without scanning."""
        return self.scan.steps(x_BHWC, grid)


class Stage(nn.Module):
    """Blocks in a row; each two of them are wrapped by one more identity residual (Fig. 2d)."""

    def __init__(self, blocks: list[nn.Module], *, residual_wrap: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.residual_wrap = residual_wrap

    def forward(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); the grid says which tokens these are."""
        return self.finish(x_BHWC, self.begin(x_BHWC, grid), grid) if self.blocks else x_BHWC

    def steps(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the mean step that the first block's scans take at each token, (B, H, W)."""
        block = self.blocks[0]
        assert isinstance(block, CVSSBlock | MixerBlock)
        return block.steps(x_BHWC, grid)

    def begin(self, x_BHWC: Tensor, grid: Grid = WHOLE, meter: Meter | None = None) -> Tensor:
        """Map tokens by the first block, which shows a meter its scans."""
        shown = () if meter is None else (meter,)
        begun: Tensor = self.blocks[0](x_BHWC, grid, *shown)
        return begun

    def finish(self, start_BHWC: Tensor, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map tokens by the other blocks, given what the first one got, and what it gave."""
        for index, block in enumerate(self.blocks):
            if index:
                x_BHWC = block(x_BHWC, grid)
            if index % 2 and self.residual_wrap:
                x_BHWC = start_BHWC = start_BHWC + x_BHWC
        return x_BHWC


def _depthwise(channels: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6())
