"""Weighted averaging of earlier features: what the mixers of a MambaMixer read.

Behrouz et al. 2024, "MambaMixer: Efficient Selective State Space Models with Dual Token and Channel
Selection" (arXiv 2403.19888). Features may have any shape, as long as all have the same.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["tokens", "alternating"]


class AveragedLayers(nn.Module):
    """Layers of a token mixer and a channel mixer; each reads a weighted sum of all before it.

    With y(0) = x for both kinds, layer l of 1 ... Lyr computes ::

        y_token(l)   = token mixer l   of sum(alpha[l,i] y_token(i), i < l)
                                        + sum(beta[l,i] y_channel(i), i < l)
        y_channel(l) = channel mixer l of sum(theta[l,i] y_token(i), i <= l)
                                        + sum(gamma[l,i] y_channel(i), i < l)

    and the result is y_channel(Lyr). All Lyr (2 Lyr + 3) coefficients are learned scalars. They
    start with theta[l,l] = 1 and, for ``tokens``, alpha[l,l-1] = 1: token mixers are a plain chain,
    and channel mixers before the last one come in as training finds weights for them. For
    ``alternating``, beta[l,l-1] = 1 instead: token and channel mixers take turns in one chain.

    Args:
        token_mixers: of the layers 1 ... Lyr; each keeps the shape.
        channel_mixers: as many.
        start: how the coefficients start.
    """

    def __init__(
        self,
        token_mixers: Sequence[nn.Module],
        channel_mixers: Sequence[nn.Module],
        *,
        start: Start = "tokens",
    ) -> None:
        super().__init__()
        self.token_mixers = nn.ModuleList(token_mixers)
        self.channel_mixers = nn.ModuleList(channel_mixers)
        layers = range(1, len(self.token_mixers) + 1)
        is_chain_of_tokens = start == "tokens"
        self.alpha = _rows(layers, is_last_read=is_chain_of_tokens)
        self.beta = _rows(layers, is_last_read=not is_chain_of_tokens)
        self.theta = _rows((layer + 1 for layer in layers), is_last_read=True)
        self.gamma = _rows(layers, is_last_read=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        tokens, channels = [x], [x]
        mixers = zip(self.token_mixers, self.channel_mixers, strict=True)
        for layer, (mix_tokens, mix_channels) in enumerate(mixers):
            read = _weighted(self.alpha[layer], tokens) + _weighted(self.beta[layer], channels)
            tokens.append(mix_tokens(read))
            read = _weighted(self.theta[layer], tokens) + _weighted(self.gamma[layer], channels)
            channels.append(mix_channels(read))
        return channels[-1]


def _rows(lengths: Iterable[int], *, is_last_read: bool) -> nn.ParameterList:
    rows = [torch.zeros(length) for length in lengths]
    for row in rows:
        row[-1] = float(is_last_read)
    return nn.ParameterList([nn.Parameter(row) for row in rows])


def _weighted(weights: Tensor, features: Sequence[Tensor]) -> Tensor:
    first, *others = (
        weight * feature for weight, feature in zip(weights.unbind(), features, strict=True)
    )
    return sum(others, start=first)
