"""Sorting tiles into forward passes."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import gcd
from typing import NamedTuple

import numpy as np
import torch

from cvmh.geo.tiling import TilePlan
from cvmh.models.pruning import CellGrid
from cvmh.predict.augment import Transform
from cvmh.predict.cells import Cells, find_cells
from cvmh.predict.pruning import Pruning
from cvmh.predict.read import Tile

# Cells of a pass on the CPU, at most: more do not fit its cache.
CELLS_IN_CACHE = 256
# A pass takes as long as so many more cells, for its calls: measured with the nano preset.
CELLS_FOR_CALLS = 48
# Kernels take rows of a matrix by blocks; where these are full, a row gets the same bits at any
# place and in a matrix of any length. Of two tiles at least, because one is multiplied otherwise.
FULL_BLOCKS, FEWEST_TILES = 32, 2
# A pruned tile waits for others while the tiles of so many dense passes come.
PASSES_TO_WAIT = 16


class Entry(NamedTuple):
    """A tile, its number among all that came, and its cells with data, None if it runs dense."""

    number: int
    tile: Tile
    cells: Cells | None


class Pass(NamedTuple):
    """The tiles of one forward pass, each in its place, and the cells of each place."""

    places: list[Entry | None]
    num_cells: int | None = None

    @property
    def entries(self) -> list[Entry]:
        """The places that are taken."""
        return [entry for entry in self.places if entry is not None]

    @property
    def tiles(self) -> list[Tile | None]:
        """The tile of each place."""
        return [None if entry is None else entry.tile for entry in self.places]

    def grid(self, turn: int, device: torch.device) -> CellGrid | None:
        """Return what is kept of the tiles after a flip or turn, None if the pass is dense."""
        if self.num_cells is None:
            return None
        found = [entry and entry.cells for entry in self.places]
        nothing = np.zeros_like(next(cells for cells in found if cells).masks[turn])
        active = np.stack([cells.masks[turn] if cells else nothing for cells in found])
        return CellGrid(torch.from_numpy(active).to(device), size=self.num_cells)


class PassMaker:
    """Sorts tiles into passes in which no tile changes what another gets.

    Dense passes have one shape, and every tile its own place in one. Pruned tiles wait for others,
    on a GPU of their stripe, and those of about equally many cells share a pass: on the CPU of any
    shape that fills the blocks of matrix kernels, on a GPU of one shape a bucket.

    Args:
        plan: the tiles to come.
        tiles_a_pass: of a dense pass, and of a pruned one on a GPU.
        transforms: the flips and turns that will be averaged.
        pruning: what is left out.
        on_cpu: as opposed to a GPU.
    """

    def __init__(
        self,
        plan: TilePlan,
        *,
        tiles_a_pass: int,
        transforms: tuple[Transform, ...],
        pruning: Pruning,
        on_cpu: bool,
    ) -> None:
        self._plan, self._tiles_a_pass = plan, tiles_a_pass
        self._first_numbers = (0, *accumulate(map(len, plan.columns)))
        self._transforms, self._pruning, self._on_cpu = transforms, pruning, on_cpu

    def passes(self, tiles: Iterable[Tile]) -> Iterator[Pass]:
        """Yield the passes; every tile is in one before many others have come."""
        current, places = -1, self._no_tiles()
        pending: list[Entry] = []
        for number, tile in enumerate(tiles):
            entry = Entry(number, tile, self._cells_of(tile))
            if pending and self._is_late(pending[0], entry):
                yield from self._packed(pending)
                pending = []
            index, place = divmod(self._number_in_plan(tile), self._tiles_a_pass)
            others = [other for other in places if other is not None]
            is_full = index != current or places[place] is not None
            if others and (is_full or _shape(tile) != _shape(others[0].tile)):
                yield Pass(places)
                places = self._no_tiles()
            current = index
            if entry.cells is None:
                places[place] = entry
            else:
                pending.append(entry)
        if any(places):
            yield Pass(places)
        yield from self._packed(pending)

    def _cells_of(self, tile: Tile) -> Cells | None:
        return find_cells(tile, self._transforms) if self._pruning.without_data else None

    def _number_in_plan(self, tile: Tile) -> int:
        columns = self._plan.columns[tile.stripe]
        return self._first_numbers[tile.stripe] + bisect_left(columns, tile.window.column)

    def _no_tiles(self) -> list[Entry | None]:
        return [None] * self._tiles_a_pass

    def _is_late(self, first: Entry, entry: Entry) -> bool:
        """Say whether those that wait must no longer wait when a tile comes."""
        waits = entry.number - first.number >= PASSES_TO_WAIT * self._tiles_a_pass
        is_elsewhere = not self._on_cpu and entry.tile.stripe != first.tile.stripe
        return waits or is_elsewhere or _shape(entry.tile) != _shape(first.tile)

    def _packed(self, pending: list[Entry]) -> Iterator[Pass]:
        """Yield passes of tiles with about as many cells, those with most first."""
        ordered = sorted(pending, key=lambda entry: -_count(entry))
        while ordered:
            made = self._first_of(ordered)
            yield made
            ordered = ordered[len(made.entries) :]

    def _first_of(self, ordered: list[Entry]) -> Pass:
        """Return the pass of the tile with most cells, and of some that follow."""
        assert ordered[0].cells is not None
        count = ordered[0].cells.num_kept
        if not self._on_cpu:
            most = self._tiles_a_pass
            return _padded(ordered[:most], most, ordered[0].cells.bucket)
        most = CELLS_IN_CACHE // count
        # The cells that the network itself will choose fill no blocks.
        if most < FEWEST_TILES or self._pruning.keep is not None:
            return _padded(ordered[:1], 1, count)
        numbers = range(1, min(most, len(ordered)) + 1)
        return min((_in_full_blocks(ordered[:number]) for number in numbers), key=_cost)


def _in_full_blocks(entries: list[Entry]) -> Pass:
    """Return the smallest pass on the CPU of tiles of which the first keeps the most cells."""
    count, fewest = _count(entries[0]), max(FEWEST_TILES, len(entries))
    shapes = [
        (tiles, count + -count % (FULL_BLOCKS // gcd(FULL_BLOCKS, tiles)))
        for tiles in range(fewest, fewest + FULL_BLOCKS)
    ]
    return _padded(entries, *min(shapes, key=lambda shape: shape[0] * shape[1]))


def _padded(entries: list[Entry], num_tiles: int, num_cells: int) -> Pass:
    return Pass([*entries, *[None] * (num_tiles - len(entries))], num_cells)


def _cost(made: Pass) -> float:
    """Return what a pass takes for each cell that is kept in it."""
    assert made.num_cells is not None, "dense passes have one shape"
    cells = len(made.places) * made.num_cells + CELLS_FOR_CALLS
    return cells / sum(map(_count, made.entries))


def _count(entry: Entry) -> int:
    assert entry.cells is not None, "dense tiles are not counted"
    return entry.cells.num_kept


def _shape(tile: Tile) -> tuple[int, ...]:
    return (*tile.pixels_CHW.shape, *tile.input_size)
