"""Which tokens of an image stay, and where the others go, by the rules of three papers.

B tiles, M tokens before, T tokens that stay, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Choice(NamedTuple):
    """Numbers of the tokens that stay, rising (B, T), and which of these each went into (B, M).

    No targets: what does not stay is dropped.
    """

    kept_BT: Tensor
    target_BM: Tensor | None = None


def drop_lowest(score_BM: Tensor, x_BMC: Tensor | None, num_kept: int) -> Choice:
    """Keep the tokens of the highest scores, of equal ones the first (ToP)."""
    return Choice(_rank(score_BM)[:, :num_kept].sort(dim=1).values)


def merge_unimportant(score_BM: Tensor, x_BMC: Tensor, num_kept: int) -> Choice:
    """Merge tokens of the less important half into the most similar ones of the other (UTR).

    Those of the less important half go that have the most similar partners. This is our reading:
    halves by rank, similarity by cosine, no token dropped without a partner.
    """
    rank = _rank(score_BM)
    num_important = score_BM.shape[1] - score_BM.shape[1] // 2
    return _merge(x_BMC, rank[:, num_important:], rank[:, :num_important], num_kept)


def merge_neighbours(score_BM: Tensor, x_BMC: Tensor, num_kept: int) -> Choice:
    """Merge the first, third, ... tokens into the most similar of the others (R-MeeTo).

    Those go that have the most similar partners, wherever these are; what stays keeps its order.
    Similarity by cosine of the features is our reading.
    """
    number = torch.arange(x_BMC.shape[1], device=x_BMC.device).expand(x_BMC.shape[:2])
    return _merge(x_BMC, number[:, ::2], number[:, 1::2], num_kept)


def fold(
    x_BMC: Tensor, weight_BM: Tensor, target_BM: Tensor, *, num_kept: int
) -> tuple[Tensor, Tensor]:
    """Return the weighted means (B, T, C) of all tokens that go into one, and sums of weights."""
    weight = weight_BM.to(x_BMC.dtype)
    total = weight.new_zeros(len(weight), num_kept).scatter_add(1, target_BM, weight)
    weighted = x_BMC * weight[..., None]
    sums = x_BMC.new_zeros(len(weight), num_kept, x_BMC.shape[-1])
    sums = sums.scatter_add(1, target_BM[..., None].expand_as(x_BMC), weighted)
    return sums / total[..., None], total


def _rank(score_BM: Tensor) -> Tensor:
    """Return the numbers of tokens, best first."""
    return score_BM.sort(dim=1, descending=True, stable=True).indices


def _merge(x_BMC: Tensor, source_BP: Tensor, partner_BQ: Tensor, num_kept: int) -> Choice:
    """Merge as many sources as must go into the partners most similar to them."""
    num_tokens = x_BMC.shape[1]
    number = torch.arange(num_tokens, device=x_BMC.device).expand(x_BMC.shape[:2])
    num_merged = num_tokens - num_kept
    if num_merged == 0:
        return Choice(number, number)
    with torch.no_grad():
        unit = functional.normalize(x_BMC, dim=-1)
        source, partner = take_rows(unit, source_BP), take_rows(unit, partner_BQ)
        best = (source @ partner.transpose(1, 2)).max(dim=2)
    going = _rank(best.values)[:, :num_merged]
    gone = source_BP.gather(1, going)
    into = partner_BQ.gather(1, best.indices.gather(1, going))
    stays = torch.ones_like(number).scatter(1, gone, 0)
    # The numbers of what stays, rising, without a branch on the data.
    kept = stays.sort(dim=1, descending=True, stable=True).indices[:, :num_kept]
    place = stays.cumsum(1) - 1
    return Choice(kept, place.scatter(1, gone, place.gather(1, into)))


def take_rows(x_BMC: Tensor, number_BP: Tensor) -> Tensor:
    """Return the tokens of these numbers, (B, P, C)."""
    return x_BMC.gather(1, number_BP[..., None].expand(-1, -1, x_BMC.shape[-1]))
