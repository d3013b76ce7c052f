"""The trunk of TSM2: from series and what explains them to a map of tokens.

Behrouz et al. 2024, "MambaMixer: Efficient Selective State Space Models with Dual Token and Channel
Selection" (arXiv 2403.19888). B samples, M variates, T time steps, P steps of a patch, L patches,
C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cvmh.errors import ShapeError
from cvmh.models.channel_mixer import ChannelMixer
from cvmh.models.feature_averaging import AveragedLayers
from cvmh.models.tsm2.mixers import SeriesNorm, TimeMixer, VariateMixer
from cvmh.models.tsm2.series import Series, known_or_mean, patches, read_series
from cvmh.models.tsm2.settings import TSM2Settings


class Tokens(NamedTuple):
    """A token (C numbers) for each patch of each variate, (B, M, L, C), and the series behind."""

    map: Tensor
    series: Series


class TSM2(nn.Module):
    """Turn series (B, M, T) with gaps into tokens (B, M, L, C), whatever T is.

    A patch is what its P time steps hold of the variate, of where it is known, of the varying
    auxiliaries (``Linear(ChannelMixer(Z))``, a series for each variate) and of the static ones
    (``Linear(S)``, P numbers for each variate, the same in all patches), through one linear layer.
    Then come pairs of a time mixer and a variate mixer with weighted averaging over all of them.
    """

    def __init__(self, settings: TSM2Settings) -> None:
        super().__init__()
        self.settings = settings
        variates, patch, width = settings.variates, settings.patch, settings.width
        self.mix_varying = self.project_varying = self.project_static = None
        if settings.varying:
            self.mix_varying = ChannelMixer(settings.varying)
            self.project_varying = nn.Linear(settings.varying, variates)
        if settings.static:
            self.project_static = nn.Linear(settings.static, variates * patch)
        num_parts = 2 + bool(settings.varying) + bool(settings.static)
        self.embed = nn.Linear(num_parts * patch, width)
        self.layers = AveragedLayers(
            [TimeMixer(settings) for _ in range(settings.depth)],
            [VariateMixer(settings) for _ in range(settings.depth)],
            start="alternating",
        )
        self.norm = SeriesNorm(width)

    def forward(
        self, series: Tensor, static: Tensor | None = None, varying: Tensor | None = None
    ) -> Tokens:
        """Return the tokens of series and the series as they were read.

        Args:
            series: (B, M, T), NaN where nothing is known.
            static: (B, static), standardised; NaN counts as 0, the mean.
            varying: (B, varying, T), standardised; NaN counts as 0, the mean.

        Raises:
            ShapeError: a shape does not fit the settings.
        """
        self._check(series, static, varying)
        read = read_series(series, is_scaled=self.settings.is_scaled)
        parts = [read.values, read.is_known.to(series.dtype)]
        if varying is not None and self.mix_varying is not None:
            assert self.project_varying is not None
            steps = known_or_mean(varying).transpose(1, 2)
            mixed = self.mix_varying(steps[:, None])[:, 0]
            parts.append(self.project_varying(mixed).transpose(1, 2))
        tokens = patches(torch.stack(parts, dim=-1), self.settings.patch)
        if static is not None and self.project_static is not None:
            own = self.project_static(known_or_mean(static))
            own = own.unflatten(1, (self.settings.variates, 1, self.settings.patch))
            tokens = torch.cat([tokens, own.expand(*tokens.shape[:3], -1)], dim=-1)
        return Tokens(self.norm(self.layers(self.embed(tokens))), read)

    def _check(self, series: Tensor, static: Tensor | None, varying: Tensor | None) -> None:
        settings = self.settings
        if series.ndim != 3 or series.shape[1] != settings.variates or not series.shape[2]:
            raise ShapeError(
                f"series must be (B, {settings.variates}, T) with T above 0, "
                f"got {tuple(series.shape)}"
            )
        batch, _, steps = series.shape
        for name, given, count, shape in (
            ("static", static, settings.static, (batch, settings.static)),
            ("varying", varying, settings.varying, (batch, settings.varying, steps)),
        ):
            came = None if given is None else tuple(given.shape)
            if came != (shape if count else None):
                raise ShapeError(
                    f"{name} must be {shape if count else 'left out'} with settings.{name} "
                    f"{count}, got {came}"
                )
