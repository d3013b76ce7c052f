"""Crops from several places of a data set: four side by side, or a box of one in another."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cvmh.datasets.reader import Cut, empty_cut

# A box shows at least and at most this share of a crop, so that both of its places are seen.
BOX_SHARE = 0.1, 0.5
# The corner of a mosaic lies between these shares of a side, so that all four parts are seen.
CORNER = 0.25, 0.75

# Cuts a piece of so many rows and columns, with draws from the generator.
Cutter = Callable[[np.random.Generator, int, int], Cut]


class Box(NamedTuple):
    """A part of a crop."""

    row: int
    column: int
    height: int
    width: int


def mosaic_boxes(generator: np.random.Generator, tile: int) -> tuple[Box, ...]:
    """Return the four parts of a mosaic, which meet in a corner."""
    row, column = (round(float(generator.uniform(*CORNER)) * tile) for _ in range(2))
    return (
        Box(0, 0, row, column),
        Box(0, column, row, tile - column),
        Box(row, 0, tile - row, column),
        Box(row, column, tile - row, tile - column),
    )


def cutmix_box(generator: np.random.Generator, tile: int) -> Box:
    """Return the part of a crop that another place is shown in."""
    share = float(generator.uniform(*BOX_SHARE))
    # From half to twice as wide as high.
    shape = float(np.exp(generator.uniform(-np.log(2) / 2, np.log(2) / 2)))
    height = max(1, min(tile, round(tile * np.sqrt(share) / shape)))
    width = max(1, min(tile, round(tile * np.sqrt(share) * shape)))
    row = int(generator.integers(tile - height + 1))
    column = int(generator.integers(tile - width + 1))
    return Box(row, column, height, width)


def lay(crop: Cut, boxes: Sequence[Box], generator: np.random.Generator, cut: Cutter) -> Cut:
    """Put a piece of another place into each of the boxes of a crop, which is modified."""
    for box in boxes:
        piece = cut(generator, box.height, box.width)
        extent = (slice(box.row, box.row + box.height), slice(box.column, box.column + box.width))
        crop.image[:, *extent] = piece.image
        crop.label[extent] = piece.label
        crop.validity[extent] = piece.validity
    return crop


def lay_mosaic(num_bands: int, tile: int, generator: np.random.Generator, cut: Cutter) -> Cut:
    """Return a crop that is made of pieces of four places."""
    crop = empty_cut(num_bands, tile, tile)
    return lay(crop, mosaic_boxes(generator, tile), generator, cut)
