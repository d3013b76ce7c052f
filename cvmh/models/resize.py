"""Layers that change the size of a map: embedding, merging, expanding, the final projection.

B batch, C channels, H W map. The forms are VM-UNet's.
"""

from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.cvss import to_channels_first, to_channels_last


class PatchEmbed(nn.Module):
    """Cut an image into patches and project each to C channels: convolution, LayerNorm."""

    def __init__(self, bands: int, channels: int, patch: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(bands, channels, patch, stride=patch)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / patch, W / patch, C)."""
        return self.norm(to_channels_last(self.project(x_BCHW)))


class PatchMerging(nn.Module):
    """Halve a map by joining 2x2 neighbours: gather to 4C, LayerNorm, Linear to 2C."""

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, channels_out, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, channels_out); H and W are even."""
        batch, height, width, channels = x_BHWC.shape
        x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # Neighbours in the order (0,0), (1,0), (0,1), (1,1), as published weights have it.
        x = x.permute(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
        return self.reduce(self.norm(x))


class PatchExpanding(nn.Module):
    """Enlarge a map by pixel-shuffle: Linear, shuffle, LayerNorm."""

    def __init__(self, channels: int, channels_out: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(channels, factor * factor * channels_out, bias=False)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, factor H, factor W, channels_out)."""
        x = functional.pixel_shuffle(to_channels_first(self.expand(x_BHWC)), self.factor)
        return self.norm(to_channels_last(x))


class FinalProjection(nn.Module):
    """Restore full resolution and give logits: expand by the patch size, 1x1 convolution."""

    def __init__(self, channels: int, inner: int, num_classes: int, patch: int) -> None:
        super().__init__()
        self.expand = PatchExpanding(channels, inner, patch)
        self.classify = nn.Conv2d(inner, num_classes, 1)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, num_classes, patch H, patch W)."""
        return self.classify(to_channels_first(self.expand(x_BHWC)))
