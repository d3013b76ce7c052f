"""The two mixers of TSM2: along time, forwards, and along variates, both ways.

B samples, M variates, L patches, C channels; maps are (B, M, L, C).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.ss2d import SS2D
from cvmh.models.tsm2.settings import TSM2Settings

# Steps that the convolution along time sees, as in Mamba, and variates that the other one sees.
STEPS_SEEN = 4
VARIATES_SEEN = 3


class SeriesNorm(nn.Module):
    """Normalise each sample over its time and its features together, as TSMixer's 2D norm.

    Mean and variance are over patches, variates and channels at once, so that their proportions
    stay; weight and bias are a number a channel, so that any length fits.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BMLC: Tensor) -> Tensor:
        """Map (B, M, L, C) to (B, M, L, C)."""
        return functional.layer_norm(x_BMLC, x_BMLC.shape[1:]) * self.weight + self.bias


class TimeMixer(nn.Module):
    """Scan each variate forwards in time: no patch learns from a later one, but for the norm.

    The norm sees the whole past that the network was given.
    """

    def __init__(self, settings: TSM2Settings) -> None:
        super().__init__()
        self.norm = SeriesNorm(settings.width)
        self.scan = SS2D(
            settings.width,
            d_state=settings.d_state,
            expand=settings.expand,
            paths="single",
            conv_size=(1, STEPS_SEEN),
            is_causal=True,
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BMLC: Tensor) -> Tensor:
        """Map (B, M, L, C) to (B, M, L, C)."""
        series = self.norm(x_BMLC).flatten(0, 1)[:, None]
        mixed = self.scan(series)[:, 0].unflatten(0, x_BMLC.shape[:2])
        return self.dropout(mixed)


class VariateMixer(nn.Module):
    """Scan the variates of each patch, from the first to the last and back; for the rest alike."""

    def __init__(self, settings: TSM2Settings) -> None:
        super().__init__()
        self.norm = SeriesNorm(settings.width)
        self.scan = SS2D(
            settings.width,
            d_state=settings.d_state,
            expand=settings.expand,
            paths="bidirectional",
            conv_size=(1, VARIATES_SEEN),
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BMLC: Tensor) -> Tensor:
        """Map (B, M, L, C) to (B, M, L, C)."""
        x_BLMC = self.norm(x_BMLC).transpose(1, 2)
        mixed = self.scan(x_BLMC.flatten(0, 1)[:, None])[:, 0].unflatten(0, x_BLMC.shape[:2])
        return self.dropout(mixed.transpose(1, 2))
