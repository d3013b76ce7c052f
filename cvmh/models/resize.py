"""Layers that change the size of a map: stems, merging, expanding, heads.

B batch, C channels, H W map. The forms are VM-UNet's; the convolutional stem and head are ours.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import (
    PointwiseConv,
    conv_norm_relu,
    to_channels_first,
    to_channels_last,
)
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.ops.expansion import expand_pixels

# Pixels along each side of what a stem makes one token of.
PATCH = 4
# The maps of a stem that its head wants beside the decoder's.
Finer = tuple[Tensor, ...]


class PatchStem(nn.Module):
    """Cut an image into patches of 4x4 and project each to C channels: convolution, LayerNorm."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(bands, channels, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> tuple[Tensor, Finer]:
        """Map (B, bands, H, W) to (B, H / 4, W / 4, C); there are no finer maps."""
        return self.norm(to_channels_last(self.project(x_BCHW))), ()


class PatchMerging(nn.Module):
    """Halve a map by joining 2x2 neighbours: gather to 4C, LayerNorm, Linear to 2C."""

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, channels_out, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, channels_out), rounded up: zeros are added."""
        if x_BHWC.shape[1] % 2 or x_BHWC.shape[2] % 2:
            x_BHWC = functional.pad(x_BHWC, (0, 0, 0, x_BHWC.shape[2] % 2, 0, x_BHWC.shape[1] % 2))
        batch, height, width, channels = x_BHWC.shape
        x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # Neighbours in the order (0,0), (1,0), (0,1), (1,1), as published weights have it.
        x = x.permute(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
        return self.reduce(self.norm(x))


class PatchExpanding(nn.Module):
    """Enlarge a map: Linear to factor^2 pixels for each pixel, LayerNorm, put them in place."""

    def __init__(self, channels: int, channels_out: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(channels, factor * factor * channels_out, bias=False)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x_BHWC: Tensor, beside_BHWC: Tensor | None = None) -> Tensor:
        """Map (B, H, W, C) to (B, factor H, factor W, channels_out).

        The channels of a map beside it, of this size, go behind those.
        """
        return expand_pixels(
            self.expand(x_BHWC),
            self.norm.weight,
            self.norm.bias,
            factor=self.factor,
            eps=self.norm.eps,
            beside_BHWE=beside_BHWC,
        )

    def split(self, x_BHWC: Tensor) -> Tensor:
        """Return the pixels that come of each pixel, row by row: (B, H, W, factor^2, channels_out).

        The norm acts on single pixels, so it can come before they are put in place.
        """
        return self.norm(self.expand(x_BHWC).unflatten(-1, (self.factor**2, -1)))


class ProjectionHead(nn.Module):
    """Restore full resolution and give logits: expand by 4, 1x1 convolution (final projection)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.expand = PatchExpanding(channels, channels // PATCH, PATCH)
        self.classify = PointwiseConv(channels // PATCH, num_classes)

    def forward(self, x_BHWC: Tensor, finer: Finer, grid: Grid = WHOLE) -> Tensor:
        """Map (B, H, W, C) to (B, num_classes, 4 H, 4 W)."""
        batch, height, width, _ = x_BHWC.shape
        # Classified before they are put in place, because logits are fewer than channels.
        pixels = to_channels_first(self.expand.split(x_BHWC).flatten(1, 2))
        logits = self.classify(pixels).view(batch, -1, height, width, PATCH, PATCH)
        return logits.transpose(3, 4).reshape(batch, -1, height * PATCH, width * PATCH)


class ConvStem(nn.Module):
    """Reach a quarter of the resolution by three 3x3 convolutions, the last two with stride 2.

    Fine texture then passes nonlinear layers before it is cut into tokens, which small networks
    learn from in far fewer steps (Xiao et al. 2021, "Early convolutions help transformers see
    better"), and its two finer maps carry outlines to the head.
    """

    def __init__(self, bands: int, channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.at_full = conv_norm_relu(bands, widths[0])
        self.at_half = conv_norm_relu(widths[0], widths[1], stride=2)
        self.project = nn.Conv2d(widths[1], channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: Tensor, grid: Grid = WHOLE) -> tuple[Tensor, Finer]:
        """Map (B, bands, H, W) to (B, H / 4, W / 4, C), and its maps at full and half size."""
        full = grid.run(self.at_full, x_BCHW.contiguous(memory_format=torch.channels_last))
        half = grid.run(self.at_half, full)
        tokens = grid.convolve(self.project, half)
        return self.norm(to_channels_last(tokens)), (full, half)


class ConvHead(nn.Module):
    """Restore full resolution in two steps of expanding, joining a stem's map, and convolving."""

    def __init__(self, channels: int, widths: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        full, half = widths
        self.expand_half = PatchExpanding(channels, half)
        self.at_half = conv_norm_relu(2 * half, half)
        self.expand_full = PatchExpanding(half, full)
        self.at_full = conv_norm_relu(2 * full, full)
        self.classify = PointwiseConv(full, num_classes)

    def forward(self, x_BHWC: Tensor, finer: Finer, grid: Grid = WHOLE) -> Tensor:
        """Map (B, H, W, C) and the maps of a :class:`ConvStem` to (B, num_classes, 4 H, 4 W)."""
        full, half = finer
        both = self.expand_half(x_BHWC, to_channels_last(half))
        half = grid.run(self.at_half, to_channels_first(both))
        both = self.expand_full(to_channels_last(half), to_channels_last(full))
        return self.classify(grid.run(self.at_full, to_channels_first(both)))
