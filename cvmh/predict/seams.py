"""Where neighbouring tiles disagree: counted in the overlaps, which are computed anyway.

Legend: K classes, H rows, W columns.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.geo.tiling import Span, TilePlan
from cvmh.predict.read import wrapped
from cvmh.predict.scored import ScoredTile

# So many borders are named as the worst.
WORST = 10


class SeamCounter:
    """Compares the classes that a tile gives with those of the tile left of it and above it.

    Every pixel of an overlap is compared once, with the tile that came just before. Only pixels of
    the span count, so that the counts do not depend on how a scene is split into spans.
    """

    def __init__(self, plan: TilePlan, span: Span, cover: Span, num_classes: int) -> None:
        self._plan, self._span, self._cover, self._num_classes = plan, span, cover, num_classes
        self._ids_HW = np.full((plan.tile_height, cover.end - cover.first), NODATA_ID, np.uint8)
        self._stripe, self._last_end = -1, 0
        self._reset()

    def add(self, scored: ScoredTile, *, is_counted: bool) -> None:
        """Compare a tile with what its neighbours said, and remember what it says."""
        window = scored.tile.window
        first = window.column - self._cover.first
        if scored.tile.stripe != self._stripe:
            self._stripe, self._last_end = scored.tile.stripe, window.column
        left = max(0, self._last_end - window.column)
        self._last_end = window.column + window.width
        top = self._overlap_above(scored.tile.stripe)
        inside = slice(
            max(0, self._span.first - window.column),
            max(0, min(window.width, self._span.end - window.column)),
        )
        for ring, part in wrapped(window.row, window.height, self._plan.tile_height):
            known = self._ids_HW[ring, first : first + window.width]
            ids = scored.ids_HW[part]
            if is_counted:
                rows_above = max(0, min(part.stop, top) - part.start)
                self._compare("left", known, ids, slice(None), _cut(inside, 0, left), window.column)
                above = _cut(inside, left, window.width)
                self._compare("above", known, ids, slice(0, rows_above), above, window.row)
            np.copyto(known, ids, where=ids != NODATA_ID)

    def forget(self, ring: slice, columns: slice) -> None:
        """Forget rows of the ring that are final."""
        self._ids_HW[ring, columns] = NODATA_ID

    def take(self) -> dict[str, Any]:
        """Return what was counted since the last call, JSON."""
        facts = {
            "pairs": self._pairs.tolist(),
            "borders": [[side, at, *counts] for (side, at), counts in self._borders.items()],
        }
        self._reset()
        return facts

    def _reset(self) -> None:
        self._pairs = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)
        self._borders: dict[tuple[str, int], list[int]] = {}

    def _overlap_above(self, stripe: int) -> int:
        if stripe == 0:
            return 0
        rows = self._plan.rows
        return max(0, rows[stripe - 1] + self._plan.tile_height - rows[stripe])

    def _compare(
        self,
        side: str,
        known: NDArray[np.uint8],
        ids: NDArray[np.uint8],
        rows: slice,
        columns: slice,
        at: int,
    ) -> None:
        before, now = known[rows, columns], ids[rows, columns]
        is_equal = before == now
        # Most pixels agree, and comparing with a number is far quicker than a table of pairs.
        alike = np.where(is_equal, now, NODATA_ID)
        same = [int(np.count_nonzero(alike == number)) for number in range(self._num_classes)]
        first, second = before[~is_equal], now[~is_equal]
        is_both = (first != NODATA_ID) & (second != NODATA_ID)
        code = first[is_both].astype(np.intp) * self._num_classes + second[is_both]
        if not len(code) and not any(same):
            return
        pairs = np.bincount(code, minlength=self._num_classes**2)
        self._pairs += pairs.reshape(self._num_classes, self._num_classes)
        self._pairs[np.diag_indices(self._num_classes)] += same
        counts = self._borders.setdefault((side, at), [0, 0])
        counts[0] += len(code) + sum(same)
        counts[1] += len(code)


def _cut(inside: slice, first: int, end: int) -> slice:
    start = max(inside.start, first)
    return slice(start, max(start, min(inside.stop, end)))


def summarise(facts: Iterable[dict[str, Any]], classes: ClassTable) -> dict[str, Any]:
    """Return the seam report of a scene: shares of overlap pixels on which neighbours disagree.

    Args:
        facts: what :meth:`SeamCounter.take` gave, a stripe and a span at a time.
        classes: gives the names.

    Returns:
        ``pixels`` compared; ``share`` that differs, None where nothing overlaps; ``classes``: the
        share of each class, among the pixels to which one of the two gives that class;
        ``columns`` and ``rows``: [where a border begins, pixels, share] for the borders between
        columns of tiles and between stripes; ``worst``: those with the largest shares.
    """
    pairs = np.zeros((len(classes), len(classes)), dtype=np.int64)
    borders: dict[tuple[str, int], list[int]] = {}
    for entry in facts:
        pairs += np.array(entry["pairs"], dtype=np.int64)
        for side, at, pixels, differing in entry["borders"]:
            counts = borders.setdefault((side, at), [0, 0])
            counts[0] += pixels
            counts[1] += differing
    same, total = np.diagonal(pairs), int(pairs.sum())
    either = pairs.sum(axis=0) + pairs.sum(axis=1) - same
    listed: dict[str, list[list[Any]]] = {
        name: [[at, n, _share(d, n)] for (s, at), (n, d) in sorted(borders.items()) if s == side]
        for name, side in (("columns", "left"), ("rows", "above"))
    }
    ranked = sorted(
        ([name, *border] for name, entries in listed.items() for border in entries),
        key=lambda entry: entry[3] or 0,
        reverse=True,
    )
    return {
        "pixels": total,
        "share": _share(total - int(same.sum()), total),
        "classes": {
            name: _share(int(e - s), int(e))
            for name, e, s in zip(classes.names, either, same, strict=True)
        },
        **listed,
        "worst": ranked[:WORST],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
