"""Assigning groups to splits so that each split has its share of every class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Beginnings that are tried, fewer where there are many groups; the best result is kept.
MOST_TRIES, FEWEST_TRIES, MOVES = 64, 4, 4000
# Rounds of moving single groups to where they fit better.
ROUNDS = 20


def assign(amounts: NDArray[np.int64], shares: Sequence[float], *, seed: int) -> NDArray[np.int64]:
    """Return a split (number) for each group; every split with a share gets at least one group.

    Args:
        amounts: (groups, classes), labelled pixels.
        shares: the share of each split, which sum to 1.
        seed: the same one gives the same splits.
    """
    features = _features(amounts)
    goal = np.asarray(shares, dtype=np.float64)
    generator = np.random.default_rng(seed)
    best, lowest = np.zeros(len(amounts), dtype=np.int64), np.inf
    for attempt in range(min(MOST_TRIES, max(FEWEST_TRIES, MOVES // len(amounts)))):
        # The largest first, for what is left over is small; later in any order.
        order = generator.permutation(len(amounts))
        if attempt == 0:
            order = order[np.argsort(-amounts[order].sum(axis=1), kind="stable")]
        splits = _improve(features, goal, _fill(features, goal, order))
        cost = _cost(_sums(features, splits, len(goal)), goal)
        if cost < lowest - 1e-12:
            best, lowest = splits, cost
    return best


def _features(amounts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each class, and of the whole, that each group has, weighed."""
    totals = amounts.sum(axis=0)
    classes = amounts[:, totals > 0] / totals[totals > 0]
    whole = amounts.sum(axis=1, keepdims=True) / max(1, totals.sum())
    # The size counts four times as much as all classes together.
    return np.concatenate([classes / max(1, classes.shape[1]) ** 0.5, 2 * whole], axis=1)


def _fill(
    features: NDArray[np.float64], goal: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    splits = np.zeros(len(features), dtype=np.int64)
    sums = np.zeros((len(goal), features.shape[1]))
    counts = np.zeros(len(goal), dtype=int)
    for place, group in enumerate(order):
        empty = np.flatnonzero(counts == 0)
        # The last groups go to splits that have none yet.
        open_splits = empty if len(order) - place <= len(empty) else np.arange(len(goal))
        costs = []
        for split in open_splits:
            sums[split] += features[group]
            costs.append(_cost(sums, goal, features.sum(axis=0)))
            sums[split] -= features[group]
        chosen = int(open_splits[int(np.argmin(costs))])
        splits[group] = chosen
        sums[chosen] += features[group]
        counts[chosen] += 1
    return splits


def _improve(
    features: NDArray[np.float64], goal: NDArray[np.float64], splits: NDArray[np.int64]
) -> NDArray[np.int64]:
    sums = _sums(features, splits, len(goal))
    counts = np.bincount(splits, minlength=len(goal))
    for _ in range(ROUNDS):
        moved = False
        for group, own in enumerate(splits.tolist()):
            if counts[own] == 1:
                continue
            costs = []
            for split in range(len(goal)):
                trial = sums.copy()
                trial[own] -= features[group]
                trial[split] += features[group]
                costs.append(_cost(trial, goal))
            best = int(np.argmin(costs))
            if costs[best] < costs[own] - 1e-12:
                sums[own] -= features[group]
                sums[best] += features[group]
                counts[own] -= 1
                counts[best] += 1
                splits[group], moved = best, True
        if not moved:
            break
    return splits


def _sums(
    features: NDArray[np.float64], splits: NDArray[np.int64], num_splits: int
) -> NDArray[np.float64]:
    return np.stack([features[splits == split].sum(axis=0) for split in range(num_splits)])


def _cost(
    sums: NDArray[np.float64],
    goal: NDArray[np.float64],
    totals: NDArray[np.float64] | None = None,
) -> float:
    """Return how far the splits are from their shares, relative to these."""
    whole = sums.sum(axis=0) if totals is None else totals
    return float((((sums - goal[:, None] * whole) / goal[:, None]) ** 2).sum())
