"""Joining the scores of overlapping tiles, a stripe at a time.

Legend: K classes, H rows, W columns.
"""

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.tiling import Span, Stripe, TilePlan, blend_weights
from cvmh.predict.journal import Piece, Record
from cvmh.predict.kept import PrunedTiles
from cvmh.predict.read import covering_span, wrapped
from cvmh.predict.scored import ScoredTile, best_class
from cvmh.predict.seams import SeamCounter

# Columns are final, or without any data, in blocks of so many.
BLOCK = 256
# A score of 1 as uint8; 255 is no data.
FULL_SCORE = 254


class Planes(NamedTuple):
    """What is kept of the scores beside the class ids."""

    confidence: bool = False
    # "uint8", "float16" or None
    scores: str | None = None


class ScoreBuffer:
    """The weighted scores of the rows that tiles still touch: K x tile height x span of columns.

    A ring of rows, so its size does not depend on the scene's height. The weights need no sum of
    their own: a tile's scores sum to one over the classes, so the buffer's sum over the classes is
    the sum of weights, and the class with the largest weighted sum is the class with the largest
    mean score. Tiles are added from left to right and from top to bottom whatever the span, so
    that every pixel's sum is taken in one order.

    Args:
        plan: the tiles.
        span: the columns that become final here.
        num_classes: K.
        planes: what to keep beside the class ids.
    """

    def __init__(self, plan: TilePlan, span: Span, num_classes: int, planes: Planes) -> None:
        self._plan, self._span, self._planes = plan, span, planes
        self._cover = covering_span(plan, span)
        size = (plan.tile_height, self._cover.end - self._cover.first)
        # By numpy: pages of its zeros that no tile touches never take any memory.
        self.scores_KHW = torch.from_numpy(np.zeros((num_classes, *size), dtype=np.float32))
        self.is_valid_HW = np.zeros(size, dtype=bool)
        self._seams = SeamCounter(plan, span, self._cover, num_classes)
        # The row after the last one that a tile touched, a block of columns.
        self._touched = np.zeros(-(-size[1] // BLOCK), dtype=np.int64)
        self._tiles, self._pruned = 0, PrunedTiles()
        self.seconds = 0.0

    def add(self, scored: ScoredTile, *, is_counted: bool) -> None:
        """Add a tile of the current stripe, and count where it differs from its neighbours."""
        started = time.perf_counter()
        window = scored.tile.window
        first = window.column - self._cover.first
        columns = slice(first, first + window.width)
        weights = _weights(window.height, window.width)
        for ring, part in wrapped(window.row, window.height, self._plan.tile_height):
            self.scores_KHW[:, ring, columns].addcmul_(scored.scores_KHW[:, part], weights[part])
            self.is_valid_HW[ring, columns] |= scored.tile.is_valid_HW[part]
        blocks = slice(first // BLOCK, (first + window.width - 1) // BLOCK + 1)
        self._touched[blocks] = window.row + window.height
        self._seams.add(scored, is_counted=is_counted)
        # A tile that meets two spans counts in that in which it begins.
        is_own = self._span.first <= window.column < self._span.end
        if is_counted and is_own:
            self._tiles += 1
            self._pruned.add(scored.cells)
        self.seconds += time.perf_counter() - started

    def take(self, stripe: Stripe) -> Record:
        """Return the final rows of a stripe, and forget them."""
        started = time.perf_counter()
        pieces = tuple(self._piece(stripe, span) for span in self._live(stripe.row))
        self._forget(stripe)
        # A comparison a class is several times as fast as a histogram.
        counts = [
            sum(int(np.count_nonzero(piece.planes[0] == number)) for piece in pieces)
            for number in range(len(self.scores_KHW))
        ]
        facts = {
            "tiles": self._tiles,
            "class_pixels": counts,
            **self._pruned.facts(),
            **self._seams.take(),
        }
        self._tiles, self._pruned = 0, PrunedTiles()
        self.seconds += time.perf_counter() - started
        return Record(facts, pieces)

    def skip(self, stripe: Stripe) -> None:
        """Forget the final rows of a stripe that is finished already."""
        self._forget(stripe)
        self._seams.take()

    def _live(self, row: int) -> Iterator[Span]:
        """Yield the runs of columns of the span that a tile has touched, from a row on."""
        is_live = self._touched > row
        edges = np.flatnonzero(np.diff(is_live, prepend=False, append=False)) * BLOCK
        for begin, stop in zip(edges[::2], edges[1::2], strict=True):
            first = max(int(begin) + self._cover.first, self._span.first)
            end = min(int(stop) + self._cover.first, self._span.end)
            if first < end:
                yield Span(first, end)

    def _piece(self, stripe: Stripe, span: Span) -> Piece:
        """Blend the final rows of a stripe in some columns."""
        count, width = stripe.end_final_row - stripe.row, span.end - span.first
        planes = self._empty_planes(count, width)
        for ring, part in wrapped(stripe.row, count, self._plan.tile_height):
            for first in range(0, width, BLOCK * 4):
                to = slice(first, min(first + BLOCK * 4, width))
                shift = span.first - self._cover.first
                source = slice(to.start + shift, to.stop + shift)
                is_valid = self.is_valid_HW[ring, source]
                blended = self._blend(self.scores_KHW[:, ring, source].numpy(), is_valid)
                for plane, values in zip(planes, blended, strict=True):
                    plane[..., part, to] = values
        return Piece(span.first, tuple(planes))

    def _empty_planes(self, count: int, width: int) -> list[NDArray[Any]]:
        planes: list[NDArray[Any]] = [np.empty((count, width), np.uint8)]
        if self._planes.confidence:
            planes.append(np.empty((count, width), np.uint8))
        if self._planes.scores:
            planes.append(np.empty((len(self.scores_KHW), count, width), self._planes.scores))
        return planes

    def _blend(
        self, sums_KHW: NDArray[np.float32], is_valid: NDArray[np.bool_]
    ) -> list[NDArray[Any]]:
        ids, best = best_class(sums_KHW)
        np.putmask(ids, ~is_valid, NODATA_ID)
        planes: list[NDArray[Any]] = [ids]
        if not (self._planes.confidence or self._planes.scores):
            return planes
        with np.errstate(divide="ignore", invalid="ignore"):
            per_weight = np.float32(1) / sums_KHW.sum(axis=0)
            if self._planes.confidence:
                planes.append(_to_uint8(best * per_weight, is_valid))
            if self._planes.scores:
                means = sums_KHW * per_weight
                is_float = self._planes.scores == "float16"
                planes.append(_to_half(means, is_valid) if is_float else _to_uint8(means, is_valid))
        return planes

    def _forget(self, stripe: Stripe) -> None:
        count = stripe.end_final_row - stripe.row
        is_live = self._touched > stripe.row
        edges = np.flatnonzero(np.diff(is_live, prepend=False, append=False)) * BLOCK
        for ring, _ in wrapped(stripe.row, count, self._plan.tile_height):
            for begin, stop in zip(edges[::2], edges[1::2], strict=True):
                self.scores_KHW[:, ring, begin:stop] = 0
                self.is_valid_HW[ring, begin:stop] = False
                self._seams.forget(ring, slice(begin, stop))


@lru_cache(maxsize=8)
def _weights(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(blend_weights(height, width))


def _to_uint8(scores: NDArray[np.float32], is_valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    rounded = np.rint(scores * np.float32(FULL_SCORE))
    return np.where(is_valid, rounded, NODATA_ID).astype(np.uint8)


def _to_half(scores: NDArray[np.float32], is_valid: NDArray[np.bool_]) -> NDArray[np.float16]:
    return np.where(is_valid, scores, np.nan).astype(np.float16)
