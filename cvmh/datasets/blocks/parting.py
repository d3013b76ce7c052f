"""Keeping pieces of different splits apart: by narrowing blocks, and by leaving pieces out."""

from collections.abc import Sequence

import numpy as np

from cvmh.datasets.blocks.groups import near_pairs
from cvmh.datasets.blocks.pieces import Piece, narrowed
from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.structure import UNUSED
from cvmh.geo.tiling import Window


def keep_apart(
    pieces: list[Piece], names: Sequence[str], gap: float, examination: Examination
) -> list[Piece]:
    """Return the pieces, those that are not trained on narrowed where another split is near."""
    near: dict[int, list[int]] = {}
    for one, other in near_pairs(pieces, gap):
        if pieces[one].facts is pieces[other].facts and names[one] != names[other]:
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    narrow = []
    for number, piece in enumerate(pieces):
        if names[number] == "train" or number not in near or piece.window is None:
            narrow.append(piece)
            continue
        others = [w for n in near[number] if (w := pieces[n].window) is not None]
        narrow.append(_narrow(piece, piece.window, others, gap, examination))
    return narrow


def _narrow(
    piece: Piece, window: Window, others: list[Window], gap: float, examination: Examination
) -> Piece:
    pixels = int(np.ceil(gap / piece.unit))
    top, left = window.row, window.column
    bottom, right = top + window.height, left + window.width
    above = any(other.row + other.height <= top for other in others)
    below = any(other.row >= bottom for other in others)
    before = any(other.column + other.width <= left for other in others)
    after = any(other.column >= right for other in others)
    first_row, end_row = top + pixels * above, bottom - pixels * below
    first_column, end_column = left + pixels * before, right - pixels * after
    shown = Window(first_row, first_column, end_row - first_row, end_column - first_column)
    return piece if min(shown.height, shown.width) < 1 else narrowed(piece, shown, examination)


def leave_out_neighbours(pieces: list[Piece], names: Sequence[str], gap: float) -> list[str]:
    """Return the splits, with :data:`UNUSED` for pieces too near to another split."""
    left = list(names)
    # Training gives way to the others, validation to the test.
    order = {"train": 0, "val": 1, "test": 2}
    for one, other in near_pairs(pieces, gap):
        if UNUSED not in (left[one], left[other]) and left[one] != left[other]:
            left[min((one, other), key=lambda number: order[names[number]])] = UNUSED
    return left
