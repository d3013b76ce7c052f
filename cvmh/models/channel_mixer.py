"""The selective channel mixer of MambaMixer, with weights for maps of any size.

Behrouz et al. 2024 (arXiv 2403.19888) transpose the map and scan along its channels with all L
pixels as features, so that weights grow with L. Here a scan along the channels has few features,
in one of two forms. B batch, H W map, L = H W pixels, C channels, E inner channels, P grid.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.ss2d import SS2D

ChannelForm = Literal["positions", "grid"]


class ChannelMixer(nn.Module):
    """Mix the channels of a map by selective scans along them, both ways.

    ``x W_widen`` has E channels, scanned as below, and is projected back. A scan along channels is
    an :class:`~cvmh.models.ss2d.SS2D` over maps of 1 x E, channels as columns: convolution over
    three neighbours, a scan in each direction with parameters of its own, their sum, a gate.

    * ``positions``: the channels of each pixel are a series of E scalars, which the mixer lifts to
      ``features`` and projects back. Cost L E features N: for maps of low resolution.
    * ``grid``: the map is averaged to P x P cells, which are the features of one series of E steps;
      its result, bilinear between the cells' centres, gates the map through a sigmoid. The cost is
      the same for all maps: for those of high resolution.

    Args:
        channels: C.
        inner: E; None is C.
        form: of the scan.
        features: of ``positions``.
        grid: P of ``grid``.
        d_state: N.
    """

    def __init__(
        self,
        channels: int,
        *,
        inner: int | None = None,
        form: ChannelForm = "positions",
        features: int = 8,
        grid: int = 7,
        d_state: int = 4,
    ) -> None:
        super().__init__()
        inner = inner or channels
        is_grid = form == "grid"
        self.form, self.grid = form, grid
        self.widen = nn.Linear(channels, inner, bias=False)
        self.scan = SS2D(
            grid**2 if is_grid else 1,
            expand=1 if is_grid else features,
            d_state=d_state,
            paths="bidirectional",
            conv_size=(1, 3),
        )
        self.narrow = nn.Linear(inner, channels, bias=False)

    def reset_lift(self) -> None:
        """Draw the weights that lift a scalar as torch does: those of 0.02 would silence it."""
        if self.form == "positions":
            self.scan.in_proj.reset_parameters()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x_BHWE = self.widen(x_BHWC)
        mixed = self._by_grid(x_BHWE) if self.form == "grid" else self._by_position(x_BHWE)
        return self.narrow(mixed)

    def _by_position(self, x_BHWE: Tensor) -> Tensor:
        series = x_BHWE.reshape(-1, 1, x_BHWE.shape[-1], 1)
        return self.scan(series).view(x_BHWE.shape)

    def _by_grid(self, x_BHWE: Tensor) -> Tensor:
        cells = functional.adaptive_avg_pool2d(to_channels_first(x_BHWE), self.grid)
        mixed = self.scan(cells.flatten(2)[:, None])[:, 0].unflatten(-1, (self.grid, self.grid))
        mixed = functional.interpolate(mixed, size=x_BHWE.shape[1:3], mode="bilinear")
        return x_BHWE * to_channels_last(mixed).sigmoid()
