"""Stochastic depth, the regulariser of residual branches.

B tiles, N maps in memory (B, or cells), C channels, H W map.
"""

from torch import Tensor, nn

from cvmh.models.layers import to_channels_last
from cvmh.models.pruning.grid import WHOLE, Grid


class StochasticDepth(nn.Module):
    """Leaves out a residual branch of some images in training (Huang et al. 2016, eq. 2-5).

    The branches that stay are scaled up, so that nothing changes on average. torchvision has the
    same, but loading it takes two seconds and 200 MB.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch_NHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the branch (N, H, W, C), zero for a share ``rate`` of the images.

        The grid says which maps are of one image.
        """
        if not self.training or self.rate == 0:
            return branch_NHWC
        drawn_B1 = branch_NHWC.new_empty(grid.num_tiles(branch_NHWC), 1).bernoulli_(1 - self.rate)
        is_kept = to_channels_last(grid.spread(drawn_B1))
        return branch_NHWC * (is_kept / (1 - self.rate) if self.rate < 1 else is_kept)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"rate={self.rate}"
