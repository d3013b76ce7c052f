"""Which pieces must stay together: near ones, and those with the same content."""

from collections.abc import Sequence

import numpy as np

from cvmh.datasets.blocks.pieces import Piece
from cvmh.datasets.doctor.anchors import find_common, join
from cvmh.datasets.doctor.copies import find_pairs
from cvmh.datasets.doctor.facts import Examination
from cvmh.geo.footprint import gaps_between

# Boxes that are less than half a pixel apart touch.
HALF_PIXEL = 0.5
# Lengths are compared up to rounding.
ROUNDING = 1e-6


def near_pairs(pieces: Sequence[Piece], gap: float) -> list[tuple[int, int]]:
    """Return the pairs of pieces that touch, overlap, or are less than ``gap`` apart."""
    boxes = np.array([piece.box for piece in pieces])
    pairs = []
    for number in range(len(pieces) - 1):
        least = max(gap * (1 - ROUNDING), HALF_PIXEL * pieces[number].unit)
        apart = np.maximum(gaps_between(boxes[number], boxes[number + 1 :]), 0)
        near = np.flatnonzero(np.hypot(apart[:, 0], apart[:, 1]) < least)
        pairs += [(number, number + 1 + int(other)) for other in near]
    return pairs


def alike_pairs(examination: Examination) -> set[tuple[int, int]]:
    """Return the pairs of images that are copies of each other or share pixels."""
    images = examination.images
    shared = find_common(
        [facts.anchors or join([]) for facts in images],
        [(f.image.height, f.image.width) for f in images if f.image],
        range(len(images)),
    )
    return {*find_pairs(examination), *((common.first, common.second) for common in shared)}


def grid_pairs(pieces: Sequence[Piece], side: float) -> list[tuple[int, int]]:
    """Return the pairs of pieces whose centres lie in one cell of a grid."""
    first_of: dict[tuple[int, int], int] = {}
    corner = np.min([piece.box[:2] for piece in pieces], axis=0)
    pairs = []
    for number, piece in enumerate(pieces):
        column, row = ((piece.box[:2] + piece.box[2:]) / 2 - corner) // side
        first = first_of.setdefault((int(row), int(column)), number)
        pairs.append((first, number))
    return pairs
