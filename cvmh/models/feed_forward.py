"""The feed-forward layer of a block: pixels alone, or with their neighbours.

B batch, C channels, H W map.
"""

from torch import Tensor, nn

from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.pruning.grid import WHOLE, Grid


class FeedForward(nn.Module):
    """Linear, GELU, Linear over the channels of each pixel.

    Args:
        channels: C.
        ratio: inner channels as a multiple of C.
        sees_neighbours: whether a depth-wise 3x3 convolution stands before GELU (PVT v2).
    """

    def __init__(self, channels: int, *, ratio: float = 4.0, sees_neighbours: bool = False) -> None:
        super().__init__()
        inner = int(ratio * channels)
        self.widen = nn.Linear(channels, inner)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner) if sees_neighbours else None
        self.activation = nn.GELU()
        self.narrow = nn.Linear(inner, channels)

    def forward(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); the grid says which tokens these are."""
        x_BHWC = self.widen(x_BHWC)
        if self.conv is not None:
            x_BHWC = to_channels_last(grid.convolve(self.conv, to_channels_first(x_BHWC)))
        return self.narrow(self.activation(x_BHWC))
