"""The score from which a network computes a cell, found on a sample of the scene.

Legend: B batch, C bands, G cells along a side, H height, W width.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from cvmh.geo.tiling import TilePlan, Window
from cvmh.models.bundle import Bundle
from cvmh.models.pruning import CELL
from cvmh.models.pruning.learned import Trace
from cvmh.models.pruning.scores import Threshold
from cvmh.predict.augment import IDENTITY
from cvmh.predict.cells import find_cells, share_of
from cvmh.predict.infer import Engine
from cvmh.predict.pruning import CHOSEN_DENSE_ABOVE, OFF, Pruning, Sample
from cvmh.predict.read import Tile
from cvmh.predict.sample import sample_tiles
from cvmh.predict.source import Source

logger = logging.getLogger("cvmh")

# The share of the sample's pixels with data that may get another class than by the dense network.
ALLOWED = 0.01
# The shares of the sample's cells of which the smallest is taken that changes little enough; more
# cells are taken to change less.
CANDIDATES = (0.3, 0.4, 0.5, 0.6, 0.7)
# What every tile keeps, whatever its scores.
LEAST = 0.25
# With fewer tiles for one of the sample, to try takes longer than what it can save.
TILES_FOR_ONE = 40

MakeEngine = Callable[[Bundle, Pruning], Engine]
Ids = dict[Window, NDArray[np.uint8]]


def choose_threshold(
    source: Source, plan: TilePlan, bundle: Bundle, make_engine: MakeEngine, *, tiles_to_read: int
) -> Pruning:
    """Return a high threshold, of some, that changes no more than is allowed on a sample.

    It is found by halving, as if a larger share of the cells never changed more than a smaller one.
    Where none does, and where the scene is too small for a sample, only cells without data are
    left out; what was found on the sample is told all the same.

    Args:
        source: the open scene.
        plan: its tiles.
        bundle: a network that was trained to choose cells.
        make_engine: makes the engine of a bundle.
        tiles_to_read: how many tiles may hold data.
    """
    tiles = list(sample_tiles(source, plan))
    if not tiles or tiles_to_read < TILES_FOR_ONE * len(tiles):
        logger.info(
            "prune: nodata, since a sample of %d tiles does not pay for %d tiles",
            *(len(tiles), tiles_to_read),
        )
        return Pruning(without_data=True)
    started = time.perf_counter()
    scores: list[torch.Tensor] = []
    listener = replace(bundle, network=_Listener(bundle.network, scores.append))
    dense, _ = _predicted(make_engine(listener, OFF), tiles)
    found = torch.cat(scores).float().numpy()
    data_share = sum(share_of(find_cells(tile, [IDENTITY])) for tile in tiles) / len(tiles)

    def trial(share: float) -> Pruning:
        score = _rounded(np.quantile(found, 1 - share)) if len(found) else 0.0
        keep = Threshold(score, LEAST, CHOSEN_DENSE_ABOVE)
        pruning = Pruning(without_data=True, keep=keep)
        ids, kept = _predicted(make_engine(bundle, pruning), tiles)
        sample = Sample(
            tiles=len(tiles),
            kept_share=kept,
            data_share=data_share,
            changed_share=_changed(tiles, dense, ids),
            allowed_share=ALLOWED,
        )
        return replace(pruning, sample=sample)

    chosen = _first_allowed(trial)
    assert chosen.sample is not None
    sample = replace(chosen.sample, seconds=time.perf_counter() - started)
    if sample.is_allowed:
        best = replace(chosen, sample=sample)
        logger.info("prune: %s, %.0f%% of all cells; %s", best, 100 * sample.kept_share, sample)
        return best
    logger.info("prune: nodata, since with %.0f%% of all cells %s", 100 * sample.kept_share, sample)
    return Pruning(without_data=True, sample=sample)


def _first_allowed(trial: Callable[[float], Pruning]) -> Pruning:
    """Return the trial of the smallest share that changes little enough, found by halving.

    If none does it is the last that was tried, of the largest share.
    """
    best, low, high = None, 0, len(CANDIDATES)
    while low < high:
        middle = (low + high) // 2
        tried = trial(CANDIDATES[middle])
        assert tried.sample is not None
        if tried.sample.is_allowed:
            best, high = tried, middle
        else:
            low = middle + 1
    return best or tried


class _Listener(nn.Module):
    """The dense network, which also tells the scores of those cells that hold data."""

    def __init__(self, network: nn.Module, tell: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.network, self.tell = network, tell

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        trace = Trace()
        logits: torch.Tensor = self.network(image_BCHW, keep=1.0, trace=trace)
        assert trace.score_BGG is not None, "a network that chooses has scores"
        # Where there is no data all bands are the mean of training, which is 0.
        is_data = (image_BCHW != 0).any(1, keepdim=True).float()
        is_data_BGG = functional.max_pool2d(is_data, CELL, ceil_mode=True)[:, 0] > 0
        self.tell(trace.score_BGG[is_data_BGG].cpu())
        return logits


def _predicted(engine: Engine, tiles: Sequence[Tile]) -> tuple[Ids, float]:
    """Return the class ids of tiles, and the mean share of their cells that was computed."""
    with engine:
        found = list(engine.run(tiles))
    shares = [share_of(scored.cells) for scored in found]
    return {scored.tile.window: scored.ids_HW for scored in found}, sum(shares) / len(shares)


def _changed(tiles: Sequence[Tile], before: Ids, after: Ids) -> float:
    """Return the share of pixels with data whose class is another."""
    changed = sum(
        int(np.count_nonzero(before[tile.window] != after[tile.window])) for tile in tiles
    )
    return changed / sum(int(np.count_nonzero(tile.is_valid_HW)) for tile in tiles)


def _rounded(score: float) -> float:
    """Return a score of three digits, so that small differences between devices do not show."""
    return float(f"{score:.3g}")
