"""What a TSM2 is for: to say how series go on, or of which class a sample is.

B samples, M variates, T time steps, L patches, C channels.
"""

from torch import Tensor, nn

from cvmh.models.tsm2.settings import ClassifierSettings, ForecasterSettings
from cvmh.models.tsm2.trunk import TSM2


class TSM2Forecaster(nn.Module):
    """Forecast series (B, M, T) for the next time steps, (B, M, horizon), in their own units.

    A linear layer reads the last token of each variate, which has seen all before it.
    """

    def __init__(self, settings: ForecasterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = TSM2(settings)
        self.head = nn.Linear(settings.width, settings.horizon)

    def forward(
        self, series: Tensor, static: Tensor | None = None, varying: Tensor | None = None
    ) -> Tensor:
        """Return the forecast; the arguments and errors are those of :class:`TSM2`."""
        tokens = self.trunk(series, static, varying)
        return tokens.series.unscale(self.head(tokens.map[:, :, -1]))


class TSM2Classifier(nn.Module):
    """Classify samples by their series (B, M, T): logits (B, classes).

    A linear layer reads the tokens of all variates, averaged over time.
    """

    def __init__(self, settings: ClassifierSettings) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = TSM2(settings)
        self.head = nn.Linear(settings.variates * settings.width, settings.num_classes)

    def forward(
        self, series: Tensor, static: Tensor | None = None, varying: Tensor | None = None
    ) -> Tensor:
        """Return the logits; the arguments and errors are those of :class:`TSM2`."""
        tokens = self.trunk(series, static, varying)
        return self.head(tokens.map.mean(dim=2).flatten(1))
