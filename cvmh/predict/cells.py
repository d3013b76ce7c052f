"""Which cells of a tile hold data.

Nothing is dilated: where there is no data the dense network sees nothing but the mean of training,
so that another ring of such cells would tell it nothing.

Legend: G cells along a side, H height, W width.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cvmh.models.pruning import CELL
from cvmh.predict.augment import Transform
from cvmh.predict.read import Tile

# Tiles that keep a larger share of their cells run dense.
DENSE_ABOVE = 0.7
# Tiles are counted, and on a GPU computed, by the number of their cells, rounded up to so many
# parts of a tile.
NUM_BUCKETS = 8


class Cells(NamedTuple):
    """The cells of a tile that are kept, because they hold data or by choice.

    ``masks`` has a boolean (G, G) for each flip or turn of the tile, nothing where the network
    chose; ``num_kept`` is the most that one of them keeps, out of ``total``.
    """

    masks: tuple[NDArray[np.bool_], ...]
    num_kept: int
    total: int

    @property
    def share(self) -> float:
        """The share of cells that is kept."""
        return self.num_kept / self.total

    @property
    def bucket(self) -> int:
        """The number that is kept, rounded up to one of :data:`NUM_BUCKETS`."""
        step = -(-self.total // NUM_BUCKETS)
        return min(-(-self.num_kept // step) * step, self.total)


def find_cells(tile: Tile, transforms: Sequence[Transform]) -> Cells | None:
    """Return the cells of a tile that hold data, None if there are so many that it runs dense."""
    if tile.is_valid_HW.all():
        return None
    valid = torch.from_numpy(tile.is_valid_HW)[None, None]
    masks = tuple(_with_data(t.apply(valid)[0, 0].numpy(), tile.input_size) for t in transforms)
    cells = Cells(masks, max(int(np.count_nonzero(mask)) for mask in masks), masks[0].size)
    return None if cells.share > DENSE_ABOVE else cells


def share_of(cells: Cells | None) -> float:
    """Return the share of a tile's cells that is computed; a dense tile has no :class:`Cells`."""
    return 1.0 if cells is None else cells.share


def count_cells(input_size: tuple[int, int]) -> int:
    """Return how many cells an input of so many pixels has."""
    return math.prod(-(-side // CELL) for side in input_size)


def count_chosen(count: int, input_size: tuple[int, int]) -> Cells | None:
    """Return the cells that a network chose of an input of so many pixels, None if it was all."""
    total = count_cells(input_size)
    return None if count == total else Cells((), count, total)


def _with_data(is_valid_HW: NDArray[np.bool_], input_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the cells of the network's input whose scores reach a pixel with data: (G, G)."""
    rows, columns = (
        _reach(size, wanted) for size, wanted in zip(is_valid_HW.shape, input_size, strict=True)
    )
    return (rows @ is_valid_HW.astype(np.float32) @ columns.T) > 0


@lru_cache(maxsize=64)
def _reach(size: int, input_size: int) -> NDArray[np.float32]:
    """Return which cells along a side give their scores to which pixels of a tile: (G, size).

    Where the scores are resized, pixels take part of them from beyond their own place.
    """
    scale = input_size / size
    support = 0.5 if size == input_size else max(1.0, scale)
    centres = (np.arange(size) + 0.5) * scale
    first = np.floor(centres - support).clip(0, input_size - 1) // CELL
    last = (np.ceil(centres + support) - 1).clip(0, input_size - 1) // CELL
    cells = np.arange(-(-input_size // CELL))[:, None]
    return ((first <= cells) & (cells <= last)).astype(np.float32)
