"""How much of the work pruning leaves: estimated before, counted after.

Legend: H height, W width.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.tiling import Stripe, TilePlan, Window
from cvmh.predict.augment import IDENTITY
from cvmh.predict.cells import Cells, find_cells, share_of
from cvmh.predict.infer import Spent
from cvmh.predict.pruning import Pruning, Sample
from cvmh.predict.read import Tile
from cvmh.predict.source import Source

# A plan looks at so many tiles at most, spread over the scene.
TILES_TO_LOOK_AT = 1000


class PrunedTiles:
    """Counts the pruned tiles of a stripe, for the report."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._kept = 0.0

    def add(self, cells: Cells | None) -> None:
        """Count a tile, unless it ran dense."""
        if cells is not None:
            self._buckets[cells.bucket] += 1
            self._kept += cells.share

    def facts(self) -> dict[str, Any]:
        """Return tiles by their cells, and the sum of the shares that they keep, JSON."""
        if not self._buckets:
            return {}
        buckets = {str(cells): tiles for cells, tiles in sorted(self._buckets.items())}
        return {"pruned": {"buckets": buckets, "kept": self._kept}}


def estimate_kept(
    source: Source, plan: TilePlan, data_HW: NDArray[np.bool_], pruning: Pruning
) -> float | None:
    """Return the share of the work on tiles that is left when they are pruned, None without tiles.

    Args:
        source: the open scene.
        plan: its tiles; some of those that may hold data are looked at.
        data_HW: a small map of where the scene is data.
        pruning: what is left out.
    """
    windows = [
        (stripe, column)
        for stripe in plan.stripes()
        for column in compress(stripe.columns, source.may_hold(stripe))
    ]
    shares = [
        _share_kept(_seen_small(data_HW, plan, stripe, column), pruning)
        for stripe, column in windows[:: len(windows) // TILES_TO_LOOK_AT + 1]
    ]
    return sum(shares) / len(shares) if shares else None


def _share_kept(tile: Tile, pruning: Pruning) -> float:
    """Return the share of a dense tile's work that a tile takes."""
    if not tile.is_valid_HW.any():
        return 0.0
    cells = find_cells(tile, [IDENTITY]) if pruning.without_data else None
    return share_of(cells) * pruning.share


def _seen_small(data_HW: NDArray[np.bool_], plan: TilePlan, stripe: Stripe, column: int) -> Tile:
    """Return a tile as it is on a small map, without pixels."""
    rows = (np.arange(stripe.row, stripe.end_row) + 0.5) * data_HW.shape[0] / plan.height
    columns = np.arange(column, column + stripe.width) + 0.5
    columns = columns * data_HW.shape[1] / plan.width
    return Tile(
        stripe=stripe.index,
        window=Window(stripe.row, column, stripe.height, stripe.width),
        pixels_CHW=np.empty((0, 0, 0), dtype=np.float32),
        is_valid_HW=data_HW[np.ix_(rows.astype(np.intp), columns.astype(np.intp))],
        input_size=(stripe.input_height, stripe.input_width),
    )


@dataclass(frozen=True, kw_only=True)
class PruningReport:
    """What was left out of tiles, and what that changed on a sample, if one was looked at.

    ``asked`` is what ``--prune`` said, ``prune`` what was done; they differ where "auto" found no
    threshold, or a share runs dense. ``mean_kept_share`` is that of the cells of all tiles that
    ran, dense ones counted as whole; ``tiles_by_cells`` counts pruned tiles by their kept cells,
    rounded up to eighths of a tile.
    ``estimated_seconds_saved`` compares the seconds of this call's pruned tiles with those of as
    many dense tiles, of which some were measured, and takes off the sample; None where none was.
    """

    asked: str
    prune: str
    sample: Sample | None
    tiles_dense: int
    tiles_pruned: int
    mean_kept_share: float | None
    tiles_by_cells: dict[int, int]
    estimated_seconds_saved: float | None


def sum_up(
    facts: Iterable[dict[str, Any]],
    pruning: Pruning,
    spent: Spent,
    *,
    asked: str | float,
    num_workers: int,
) -> PruningReport:
    """Return the report of a complete prediction.

    Args:
        facts: of all stripes, from the journal.
        pruning: what was left out.
        spent: the seconds of the network.
        asked: what ``--prune`` said.
        num_workers: the passes that ran at a time.
    """
    tiles_run, kept, buckets = 0, 0.0, Counter[int]()
    for entry in facts:
        tiles_run += entry["tiles"]
        pruned = entry.get("pruned", {"buckets": {}, "kept": 0.0})
        kept += pruned["kept"]
        for cells, tiles in pruned["buckets"].items():
            buckets[int(cells)] += tiles
    num_dense = tiles_run - buckets.total()
    return PruningReport(
        asked=str(asked),
        prune=str(pruning),
        sample=pruning.sample,
        tiles_dense=num_dense,
        tiles_pruned=buckets.total(),
        mean_kept_share=(num_dense + kept) / tiles_run if tiles_run else None,
        tiles_by_cells=dict(sorted(buckets.items())),
        estimated_seconds_saved=_saved(spent, num_workers, pruning.sample),
    )


def _saved(spent: Spent, num_workers: int, sample: Sample | None) -> float | None:
    if spent.pruned_tiles and spent.dense_tile is None:
        return None
    saved = (spent.pruned_tiles * (spent.dense_tile or 0.0) - spent.pruned) / num_workers
    return saved - (0.0 if sample is None else sample.seconds)
