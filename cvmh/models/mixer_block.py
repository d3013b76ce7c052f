"""The block that all encoders are made of: a mixer of pixels, then a feed-forward layer.

B batch, C channels, H W map.
"""

from collections.abc import Callable

from torch import Tensor, nn

from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.models.pruning.scores import Meter
from cvmh.models.ss2d import SS2D
from cvmh.models.stochastic_depth import StochasticDepth

Layer = Callable[[int], nn.Module]


class MixerBlock(nn.Module):
    """Residuals around LayerNorm and mixer, then around LayerNorm and feed-forward layer.

    Without a feed-forward layer it is the block of VM-UNet and VMamba v0, and the CS module of the
    CVSS block. With positions, a residual depth-wise 3x3 convolution stands before each half and
    tells pixels where they are (VSSD).

    Args:
        channels: C.
        mixer: makes the mixer of C channels; it maps (B, H, W, C) to (B, H, W, C).
        ffn: makes the feed-forward layer of C channels, of the same shapes; None: there is none.
        drop_path: share of images in which a residual branch is left out in training.
        has_positions: whether there are convolutions for positions.
        has_mixer_norm: whether a norm stands before the mixer; some mixers begin with their own.
        ffn_eps: of the norm before the feed-forward layer.
    """

    def __init__(
        self,
        channels: int,
        *,
        mixer: Layer,
        ffn: Layer | None = None,
        drop_path: float = 0.0,
        has_positions: bool = False,
        has_mixer_norm: bool = True,
        ffn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.mixer_position = _position(channels) if has_positions else None
        self.norm = nn.LayerNorm(channels) if has_mixer_norm else nn.Identity()
        self.mixer = mixer(channels)
        self.drop = StochasticDepth(drop_path)
        self.ffn_position = _position(channels) if has_positions and ffn else None
        self.ffn_norm = nn.LayerNorm(channels, eps=ffn_eps) if ffn else None
        self.ffn = ffn(channels) if ffn else None

    def forward(self, x_BHWC: Tensor, grid: Grid = WHOLE, meter: Meter | None = None) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); the grid says which tokens these are.

        Grids but the whole map are for those mixers and feed-forward layers that know of them, and
        meters for mixers that do.
        """
        where = () if grid is WHOLE else (grid,)
        x_BHWC = _placed(x_BHWC, self.mixer_position, grid)
        shown = where if meter is None else (grid, meter)
        x_BHWC = x_BHWC + self.drop(self.mixer(self.norm(x_BHWC), *shown), *where)
        if self.ffn is None or self.ffn_norm is None:
            return x_BHWC
        x_BHWC = _placed(x_BHWC, self.ffn_position, grid)
        return x_BHWC + self.drop(self.ffn(self.ffn_norm(x_BHWC), *where), *where)

    def steps(self, x_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the mean step that the mixer's scans take at each token, (B, H, W)."""
        assert isinstance(self.mixer, SS2D), "steps are those of selective scans"
        return self.mixer.steps(self.norm(_placed(x_BHWC, self.mixer_position, grid)), grid)


def _position(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def _placed(x_BHWC: Tensor, position: nn.Conv2d | None, grid: Grid) -> Tensor:
    if position is None:
        return x_BHWC
    return x_BHWC + to_channels_last(grid.convolve(position, to_channels_first(x_BHWC)))
