"""Scores: what tells which tokens, and so which cells, can be left out.

B tiles, N maps in memory, H W map, D inner channels, K paths, G cells along a side.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Kernels take rows of a matrix by blocks; where these are full, a row gets the same bits at any
# place and in a matrix of any length.
FULL_BLOCKS = 32


class Meter:
    """Hand it to a block, and its mixer shows it what it computes; here is then the score.

    Args:
        score: of :data:`SCORES`, or ``delta``, the mean of the steps over channels and paths (MTR);
            for any other name, and None, nothing is scored.
    """

    def __init__(self, score: str | None) -> None:
        self.score = score
        self.tokens_NHW: Tensor | None = None

    def read(self, scanned_NHWD: Tensor, steps_NHW: Callable[[], Tensor]) -> None:
        """Receive the sum of the scans, and a way to the mean steps; no gradient flows here."""
        with torch.no_grad():
            if self.score == "delta":
                self.tokens_NHW = steps_NHW()
            elif self.score in SCORES:
                self.tokens_NHW = SCORES[self.score](scanned_NHWD)


def clipped(y_NHWD: Tensor) -> Tensor:
    """Return ``S = sum_d max(0, y_d)`` of each token (ToP, Zhan et al. 2024), (N, H, W)."""
    return y_NHWD.clamp(min=0).sum(-1)


# Scores of what the scans of all paths add up to, before norm and gate.
SCORES: Mapping[str | None, Callable[[Tensor], Tensor]] = {
    "clipped_output": clipped,
    "output": lambda y_NHWD: y_NHWD.sum(-1),
    "l1": lambda y_NHWD: y_NHWD.abs().sum(-1),
    "l2": lambda y_NHWD: y_NHWD.square().sum(-1),
}


def highest_in_cells(tokens_NHW: Tensor, side: int) -> Tensor:
    """Return the maximum over the tokens of each cell, of so many along a side: (N, G, G)."""
    return tokens_NHW.unflatten(2, (-1, side)).unflatten(1, (-1, side)).amax((2, 4))


def count_kept(num_cells: int, keep: float) -> int:
    """Return how many of so many cells a share is: rounded, halves up; one at least if any is."""
    return min(num_cells, max(1, math.floor(keep * num_cells + 0.5)))


def in_full_blocks(most: int, num_tiles: int) -> int:
    """Return a number of cells for each of so many tiles, at least so many, that fills blocks."""
    step = FULL_BLOCKS // math.gcd(FULL_BLOCKS, num_tiles)
    return -(-most // step) * step


class Threshold(NamedTuple):
    """Which cells a tile keeps: those whose score is high enough, as many as it has of them.

    Attributes:
        score: The least that a cell must have.
        least: The share of its cells that a tile keeps at least, those with the highest scores.
        most: A tile that would keep a larger share keeps all.
    """

    score: float
    least: float
    most: float


# How many cells of a tile are kept: a share in (0, 1], or what a threshold says.
Keep = float | Threshold


def count_best(score_BGG: Tensor, active_BGG: Tensor, keep: Keep) -> Tensor:
    """Return how many of the active cells each tile keeps, (B,).

    Args:
        score_BGG: of the cells.
        active_BGG: those that there are.
        keep: the share of them, as :func:`count_kept` counts it, or a threshold.
    """
    is_active = active_BGG.flatten(1)
    num_active = is_active.sum(1)
    share = keep.least if isinstance(keep, Threshold) else keep
    counts = [count_kept(number, share) for number in range(is_active.shape[1] + 1)]
    least = torch.tensor(counts, device=num_active.device)[num_active]
    if not isinstance(keep, Threshold):
        return least
    high = (is_active & (score_BGG.flatten(1) >= keep.score)).sum(1)
    wanted = high.maximum(least)
    return torch.where(wanted > keep.most * num_active, num_active, wanted)


def best_cells(score_BGG: Tensor, active_BGG: Tensor, counts_B: Tensor) -> Tensor:
    """Return which cells are kept: so many of the active ones of each tile (B, G, G), the best.

    Of cells with equal scores those come first that lie further up, then further left.
    """
    score = score_BGG.flatten(1).masked_fill(~active_BGG.flatten(1), -torch.inf)
    rank = score.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    return (rank < counts_B[:, None]).view_as(active_BGG)
