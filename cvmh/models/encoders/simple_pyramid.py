"""A pyramid for networks of one resolution: Li et al. 2022, "Exploring Plain Vision Transformer
Backbones for Object Detection" (ViTDet). B batch, C channels, H W map of stride 16.
"""

from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.resize import PatchExpanding


def make_level(index: int, channels: int) -> nn.Module:
    """Make what brings a map (B, H, W, C) of stride 16 to the stride of a level.

    Level 0 enlarges it fourfold to C / 4 channels and level 1 twofold to C / 2, by transposed
    convolutions of 2x2 and LayerNorms; level 2 leaves it alone, and level 3 halves it by pooling.
    """
    half = channels // 2
    match index:
        case 0:
            finer = PatchExpanding(half, half // 2)
            return nn.Sequential(PatchExpanding(channels, half), nn.GELU(), finer)
        case 1:
            return PatchExpanding(channels, half)
        case 2:
            return nn.Identity()
        case _:
            return HalvedMap()


class HalvedMap(nn.Module):
    """The maximum of 2x2 neighbours."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, C), rounded up."""
        pooled = functional.max_pool2d(to_channels_first(x_BHWC), 2, ceil_mode=True)
        return to_channels_last(pooled)
