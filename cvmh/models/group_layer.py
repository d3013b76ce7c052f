"""The modulated group layer: four scans of a quarter of the channels each, weighed by all channels.

B batch, C channels, H W map.
"""

import torch
from torch import Tensor, nn

from cvmh.models.ss2d import SS2D

# One path for each quarter of the channels.
GROUP_PATHS = ("single", "columns", "rows_reversed", "columns_reversed")
REDUCTION = 16


class ChannelAffinity(nn.Module):
    """Weigh channels between 0 and 1 by what all of them are on average over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.squeeze = nn.Linear(channels, hidden)
        self.activation = nn.ReLU()
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to weights (B, 1, 1, C)."""
        mean = x_BHWC.mean(dim=(1, 2), keepdim=True)
        return self.excite(self.activation(self.squeeze(mean))).sigmoid()


class GroupLayer(nn.Module):
    """Mix a map by four single-path scans, and modulate the result: the mixer of GroupMamba.

    With ``n = LN(x)``, each quarter of the channels of n passes an :class:`SS2D` of its own path.
    The quarters together are multiplied by a learned number, by n, and by the channel affinity of
    n; the same LayerNorm and a Linear follow.

    Args:
        channels: C, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.affinity = ChannelAffinity(channels)
        self.mixers = nn.ModuleList(
            SS2D(channels // 4, paths=paths, d_state=1, expand=1) for paths in GROUP_PATHS
        )
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        normed = self.norm(x_BHWC)
        quarters = zip(self.mixers, normed.chunk(4, dim=-1), strict=True)
        mixed = torch.cat([mixer(quarter) for mixer, quarter in quarters], dim=-1)
        modulated = mixed * self.skip_scale * normed * self.affinity(normed)
        return self.out_proj(self.norm(modulated))
