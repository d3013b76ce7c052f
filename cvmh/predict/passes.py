"""Sorting tiles into forward passes."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch

from cvmh.geo.tiling import TilePlan
from cvmh.models.pruning import CellGrid
from cvmh.models.pruning.scores import FULL_BLOCKS, Keep, in_full_blocks
from cvmh.predict.augment import Transform
from cvmh.predict.cells import DENSE_ABOVE, Cells, find_cells
from cvmh.predict.pruning import Pruning
from cvmh.predict.read import Tile

# Cells of a pass on the CPU at most, unless one tile has more: many more do not fit its cache. It
# takes eight tiles of 256 that hold data in about a half.
CELLS_IN_CACHE = 288
# A pruned cell takes up to so many times the memory of a dense one: 1.2 to 1.8 were measured, and
# full blocks may add a quarter.
MEMORY_OF_CELL = 2.25
# A pass takes as long as so many more cells, for its calls: measured with the nano preset.
CELLS_FOR_CALLS = 48
# Of tiles that share a pass, whose rows fill the blocks of kernels: one is multiplied otherwise.
FEWEST_TILES = 2
# First and last tiles of a pass that are tried to find the best.
MOST_TRIED = 12
# A tile waits for others while tiles of so many pixels come, or of so many dense passes.
PIXELS_TO_WAIT, PASSES_TO_WAIT = 1 << 22, 16
# Where none is pruned, it waits for the other places of its pass while so many come.
PASSES_TO_FILL = 2


class Entry(NamedTuple):
    """A tile, its number among all that came, and its cells with data, None if it runs dense."""

    number: int
    tile: Tile
    cells: Cells | None


class Pass(NamedTuple):
    """The tiles of one forward pass, each in its place, and the cells of each place.

    ``keep`` is what the network then leaves out of them by its own choice.
    """

    places: list[Entry | None]
    num_cells: int | None = None
    keep: Keep | None = None

    @property
    def is_dense(self) -> bool:
        """Whether all cells are computed."""
        return self.num_cells is None and self.keep is None

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

    Dense passes have one shape, and every tile its own place in one; it waits until those that come
    have filled the others. Pruned tiles wait for others, on a GPU of their stripe, and those of
    about equally many cells share a pass: on the CPU of any shape that fills the blocks of matrix
    kernels, on a GPU of one shape a bucket.

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
        for made in self._made(tiles):
            yield made._replace(keep=self._pruning.keep)

    def _made(self, tiles: Iterable[Tile]) -> Iterator[Pass]:
        dense: list[Entry] = []
        pruned: list[Entry] = []
        for number, tile in enumerate(tiles):
            entry = Entry(number, tile, self._cells_of(tile))
            while dense and (self._is_late(dense[0], entry) or self._is_full(dense)):
                yield self._fill(dense)
            while pruned and self._is_late(pruned[0], entry):
                yield self._take(pruned)
            (pruned if entry.cells else dense).append(entry)
        while dense:
            yield self._fill(dense)
        while pruned:
            yield self._take(pruned)

    def memory_factor(self, cells_of_tile: int) -> float:
        """Return how much more memory than a dense pass one of pruned tiles may take."""
        if not (self._pruning.without_data and self._on_cpu):
            return 1.0
        cells = max(CELLS_IN_CACHE, DENSE_ABOVE * cells_of_tile)
        return max(1.0, MEMORY_OF_CELL * cells / (self._tiles_a_pass * cells_of_tile))

    def _cells_of(self, tile: Tile) -> Cells | None:
        return find_cells(tile, self._transforms) if self._pruning.without_data else None

    def _place(self, entry: Entry) -> int:
        """Return the place of a tile in a dense pass, the same whatever else is computed."""
        columns = self._plan.columns[entry.tile.stripe]
        before = self._first_numbers[entry.tile.stripe]
        return (before + bisect_left(columns, entry.tile.window.column)) % self._tiles_a_pass

    def _is_late(self, first: Entry, entry: Entry) -> bool:
        """Say whether a tile must no longer wait when another comes."""
        if first.cells is not None and self._most(first) == 1:
            return True
        area = entry.tile.window.height * entry.tile.window.width
        most = tiles_to_wait(area, self._tiles_a_pass, is_pruning=self._pruning.without_data)
        is_elsewhere = first.cells is not None and not self._on_cpu
        is_elsewhere = is_elsewhere and entry.tile.stripe != first.tile.stripe
        is_other = _shape(entry.tile) != _shape(first.tile)
        return entry.number - first.number >= most or is_elsewhere or is_other

    def _is_full(self, pending: list[Entry]) -> bool:
        return len(set(map(self._place, pending))) == self._tiles_a_pass

    def _fill(self, pending: list[Entry]) -> Pass:
        """Take the first tile of each place."""
        places: list[Entry | None] = [None] * self._tiles_a_pass
        for entry in reversed(pending):
            places[self._place(entry)] = entry
        pending[:] = [entry for entry in pending if places[self._place(entry)] is not entry]
        return Pass(places)

    def _take(self, pending: list[Entry]) -> Pass:
        """Take the tile that has waited longest, and those that share its pass for the least."""
        ordered = sorted(pending, key=_count, reverse=True)
        place = next(place for place, entry in enumerate(ordered) if entry is pending[0])
        # Those that keep about as many cells stand beside one another.
        rows = [
            ordered[first:end]
            for first in _some(0, place)
            for end in _some(place + 1, min(len(ordered), first + self._most(ordered[first])))
        ]
        chosen = min(rows, key=self._cost)
        numbers = {entry.number for entry in chosen}
        pending[:] = [entry for entry in pending if entry.number not in numbers]
        size = self._size(chosen)
        return Pass([*chosen, *[None] * (size.tiles - len(chosen))], size.cells)

    def _most(self, entry: Entry) -> int:
        """Return how many tiles may share a pass with one that keeps no fewer cells than they."""
        if not self._on_cpu:
            return self._tiles_a_pass
        # The cells that the network itself will choose fill no blocks.
        return 1 if self._pruning.keep is not None else max(1, CELLS_IN_CACHE // _count(entry))

    def _size(self, entries: list[Entry]) -> "_Size":
        """Return the size of a pass of tiles of which the first keeps the most cells."""
        cells = entries[0].cells
        assert cells is not None, "dense tiles have another pass"
        if not self._on_cpu:
            return _Size(self._tiles_a_pass, cells.bucket)
        if self._most(entries[0]) < FEWEST_TILES:
            return _Size(1, cells.num_kept)
        return _full_blocks(cells.num_kept, len(entries))

    def _cost(self, entries: list[Entry]) -> float:
        """Return what a pass takes for each cell that is kept in it."""
        size = self._size(entries)
        return (size.tiles * size.cells + CELLS_FOR_CALLS) / sum(map(_count, entries))


def tiles_to_wait(tile_area: int, tiles_a_pass: int, *, is_pruning: bool) -> int:
    """Return how many tiles of so many pixels come at most while one waits for its pass."""
    if not is_pruning:
        return PASSES_TO_FILL * tiles_a_pass
    return max(PIXELS_TO_WAIT // tile_area, PASSES_TO_WAIT * tiles_a_pass)


class _Size(NamedTuple):
    """Places of a pass, and cells of each."""

    tiles: int
    cells: int


@lru_cache(maxsize=4096)
def _full_blocks(count: int, num_tiles: int) -> _Size:
    """Return the smallest size, of full blocks, for so many tiles that keep up to so many cells."""
    fewest = max(FEWEST_TILES, num_tiles)
    sizes = [_Size(n, in_full_blocks(count, n)) for n in range(fewest, fewest + FULL_BLOCKS)]
    return min(sizes, key=lambda size: size.tiles * size.cells)


def _some(low: int, high: int) -> list[int]:
    """Return the numbers from the lowest to the highest, or about :data:`MOST_TRIED` of many."""
    step = max(1, -(-(high - low) // MOST_TRIED))
    return list(range(high, low - 1, -step))


def _count(entry: Entry) -> int:
    assert entry.cells is not None, "dense tiles are not counted"
    return entry.cells.num_kept


def _shape(tile: Tile) -> tuple[int, ...]:
    return (*tile.pixels_CHW.shape, *tile.input_size)
