"""The smallest overlap for which neighbouring tiles agree, found on a sample of the scene."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.tiling import Stripe, TilePlan, Window
from cvmh.predict.infer import Engine
from cvmh.predict.options import Warn
from cvmh.predict.read import Tile
from cvmh.predict.sample import read_tile, spread
from cvmh.predict.source import Source

logger = logging.getLogger("cvmh")

CANDIDATES = (0.125, 0.25, 0.375, 0.5)
# The share of an overlap's pixels on which neighbours may disagree.
TARGET = 0.02


def choose_overlap(source: Source, make_engine: Callable[[TilePlan], Engine], warn: Warn) -> float:
    """Return the smallest overlap for which neighbours disagree on at most :data:`TARGET`.

    The same share as in the seam report, of tiles spread over the scene; the largest candidate if
    none is good enough, which is told.
    """
    share = 0.0
    for overlap in CANDIDATES:
        plan = source.lay_tiles(overlap)
        share = _disagreement(source, plan, make_engine(plan))
        if share <= TARGET:
            break
    else:
        warn(
            f"neighbouring tiles of {source.raster.path} disagree on {share:.1%} of a sample even "
            f"with overlap {overlap:g}; seams may show, try a larger --tile"
        )
    logger.info("overlap %g: neighbours disagree on %.2f%% of a sample", overlap, 100 * share)
    return overlap


def _disagreement(source: Source, plan: TilePlan, engine: Engine) -> float:
    """Return the share of overlap pixels, on a sample, on which two neighbours disagree."""
    compared = differing = 0
    with engine:
        for first, others in _neighbourhoods(plan):
            tiles = [read_tile(source, *place) for place in (first, *others)]
            ids = {scored.tile.window: scored.ids_HW for scored in engine.run(_held(tiles))}
            windows = [Window(s.row, column, s.height, s.width) for s, column in (first, *others)]
            for window in windows[1:]:
                if window in ids and windows[0] in ids:
                    one, other = _shared(windows[0], ids[windows[0]], window, ids[window])
                    is_both = (one != NODATA_ID) & (other != NODATA_ID)
                    compared += int(is_both.sum())
                    differing += int((is_both & (one != other)).sum())
    return differing / compared if compared else 0.0


def _neighbourhoods(
    plan: TilePlan,
) -> Iterator[tuple[tuple[Stripe, int], list[tuple[Stripe, int]]]]:
    """Yield tiles spread over a scene, each with its neighbours to the right and below."""
    for index in spread(plan.num_stripes):
        stripe = plan.stripe(index)
        for place in spread(len(stripe.columns)):
            column = stripe.columns[place]
            others = []
            if place + 1 < len(stripe.columns):
                others.append((stripe, stripe.columns[place + 1]))
            if index + 1 < plan.num_stripes:
                below = plan.stripe(index + 1)
                others.append((below, min(below.columns, key=lambda c: abs(c - column))))
            if others:
                yield (stripe, column), others


def _held(tiles: list[Tile | None]) -> Iterator[Tile]:
    return (tile for tile in tiles if tile is not None)


def _shared(
    window: Window, ids: NDArray[np.uint8], other: Window, other_ids: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the parts of two tiles that lie on the same pixels."""
    top, left = max(window.row, other.row), max(window.column, other.column)
    bottom = min(window.rows.stop, other.rows.stop)
    right = min(window.columns.stop, other.columns.stop)
    return (
        ids[top - window.row : bottom - window.row, left - window.column : right - window.column],
        other_ids[top - other.row : bottom - other.row, left - other.column : right - other.column],
    )
