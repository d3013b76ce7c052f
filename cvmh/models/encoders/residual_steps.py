"""How VSSD goes from one resolution to the next: convolutions, batch norms, a residual in the stem.

Sizes are rounded up, so that any image will do. B batch, C channels, H W map.
"""

import torch
from torch import Tensor, nn

from cvmh.models.layers import to_channels_first, to_channels_last


class ConvLayer(nn.Module):
    """A convolution and, each where wanted, a batch norm and ReLU.

    Args:
        channels: in.
        channels_out: out.
        size: side of the kernel, odd.
        stride: of the convolution.
        is_depthwise: whether each channel is convolved alone.
        has_bias: whether the convolution has a bias.
        has_norm: whether there is a batch norm.
        is_activated: whether there is ReLU.
    """

    def __init__(
        self,
        channels: int,
        channels_out: int,
        *,
        size: int = 3,
        stride: int = 1,
        is_depthwise: bool = False,
        has_bias: bool = False,
        has_norm: bool = True,
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        groups = channels if is_depthwise else 1
        self.conv = nn.Conv2d(
            channels, channels_out, size, stride, size // 2, groups=groups, bias=has_bias
        )
        self.norm = nn.BatchNorm2d(channels_out) if has_norm else nn.Identity()
        self.activation = nn.ReLU() if is_activated else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, channels_out, H / stride, W / stride)."""
        return self.activation(self.norm(self.conv(x_BCHW)))


class ResidualStem(nn.Module):
    """Reach a quarter of the resolution by 3x3 convolutions, the two between with a residual."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = ConvLayer(bands, half, stride=2)
        self.between = nn.Sequential(
            ConvLayer(half, half), ConvLayer(half, half, is_activated=False)
        )
        self.second = nn.Sequential(
            ConvLayer(half, 4 * channels, stride=2),
            ConvLayer(4 * channels, channels, size=1, is_activated=False),
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / 4, W / 4, C)."""
        # From here on maps lie in memory as the blocks want them.
        x_BCHW = self.first(image_BCHW.contiguous(memory_format=torch.channels_last))
        x_BCHW = x_BCHW + self.between(x_BCHW)
        return to_channels_last(self.second(x_BCHW))


class WideStep(nn.Module):
    """Halve a map by a depth-wise convolution of stride 2 over eight times the channels."""

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        inner = 8 * channels
        self.widen = ConvLayer(channels, inner, size=1, has_bias=True, has_norm=False)
        self.halve = ConvLayer(
            inner, inner, stride=2, is_depthwise=True, has_bias=True, has_norm=False
        )
        self.narrow = ConvLayer(inner, channels_out, size=1, has_bias=True, is_activated=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, channels_out)."""
        x_BCHW = self.halve(self.widen(to_channels_first(x_BHWC)))
        return to_channels_last(self.narrow(x_BCHW))
