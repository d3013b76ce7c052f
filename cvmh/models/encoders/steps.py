"""How an encoder goes from one resolution to the next: stems and steps of stride 2.

Sizes are rounded up, so that any image will do. B batch, C channels, H W map.
"""

from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import to_channels_first, to_channels_last


class PatchEmbedding(nn.Module):
    """Cut an image into square patches and project each to C channels: convolution, LayerNorm."""

    def __init__(self, bands: int, channels: int, *, patch: int = 4) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(bands, channels, patch, stride=patch)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / patch, W / patch, C); zeros fill up the last patches."""
        height, width = image_BCHW.shape[-2:]
        padding = (0, -width % self.patch, 0, -height % self.patch)
        if any(padding):
            image_BCHW = functional.pad(image_BCHW, padding)
        return self.norm(to_channels_last(self.conv(image_BCHW)))


class StridedConv(nn.Module):
    """Halve a map by a 3x3 convolution of stride 2 and a LayerNorm (VMamba v2, GroupMamba)."""

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, channels_out)."""
        return self.norm(to_channels_last(self.conv(to_channels_first(x_BHWC))))


class ConvEmbedding(nn.Module):
    """Reach a quarter of the resolution by two strided convolutions, GELU between (VMamba v2)."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.first = StridedConv(bands, channels // 2)
        self.activation = nn.GELU()
        self.second = StridedConv(channels // 2, channels)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / 4, W / 4, C)."""
        return self.second(self.activation(self.first(to_channels_last(image_BCHW))))
