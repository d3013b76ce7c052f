"""Kept cells alone: variant E1, the values of the masked network for the cost of what is kept.

B tiles, M cells of each in memory, N = B M cells, S tokens along a cell's side, C channels,
H W whole map, G cells along a side of it, D inner channels, K paths, L = M S S tokens of a tile.
"""

from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.pruning.grid import Grid, LineOrder, Paths, batch_norm_of
from cvmh.ops.traversal import kept_tables, order_table

# Cells of fewer tokens than this along a side are convolved as a whole map: their borders would
# be most of the work.
SMALLEST_SIDE = 8
# Rows down and columns to the right of the cells around one.
_AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
Alignment = Literal["gap", "none"]


class CellGrid(Grid):
    """Kept cells, one after the other: maps are (B M, S, S, C).

    Tiles of fewer than M cells are padded; what stands in the padding reaches no other cell.

    Args:
        active_BGG: which cells are kept, boolean (B, height / 32, width / 32).
        size: M; None: as many as the tile has that keeps most.
        alignment: "gap": scans decay over what is pruned, as in the masked network. "none": what
            is kept closes ranks, as in earlier pruning of Mamba; it equals nothing.

    Raises:
        ShapeError: a tile keeps more cells than ``size``.
    """

    def __init__(
        self, active_BGG: Tensor, *, size: int | None = None, alignment: Alignment = "gap"
    ) -> None:
        self.active_BGG, self.alignment = active_BGG, alignment
        self.rows, self.columns = active_BGG.shape[1:]
        is_kept = active_BGG.flatten(1)
        most = int(is_kept.sum(1).amax()) if is_kept.numel() else 0
        self.num_cells = most if size is None else size
        if most > self.num_cells:
            raise ShapeError(
                f"size must be the most cells that a tile keeps, at least {most}, got {size}"
            )
        # For each cell of a whole map its place among the M of the tile, or -1.
        self.place_BG = torch.where(is_kept, is_kept.cumsum(1) - 1, -1)
        # Of all that is kept: the tile, the cell, and the place among all N.
        self._tile, self._cell = is_kept.nonzero(as_tuple=True)
        self._place = self._tile * self.num_cells + self.place_BG[self._tile, self._cell]
        self._is_full = len(self._place) == len(active_BGG) * self.num_cells
        self._tables: dict[tuple[str, str, int], Paths] = {}

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is kept."""
        return self.num_cells == 0

    @property
    def is_real_N(self) -> Tensor:
        """Which of the cells in memory are no padding: boolean (N,)."""
        counts = self.active_BGG.flatten(1).sum(1)
        numbers = torch.arange(self.num_cells, device=counts.device)
        return (numbers < counts[:, None]).flatten()

    def take(self, x_BHWC: Tensor, outer: Grid | None = None) -> Tensor:
        """Return the kept tokens of whole maps, or of those on an outer grid: (N, S, S, C)."""
        if isinstance(outer, CellGrid):
            kept = x_BHWC[outer._places_of(self)]
        else:
            kept = self._as_cells(x_BHWC)[self._index]
        if self._is_full:
            return kept
        padded = kept.new_zeros(len(self.active_BGG) * self.num_cells, *kept.shape[1:])
        return padded.index_copy(0, self._place, kept)

    def put(
        self, x_NHWC: Tensor, into_BHWC: Tensor | None = None, outer: Grid | None = None
    ) -> Tensor:
        """Return whole maps, or such on an outer grid, with these tokens; the rest is as given."""
        kept = x_NHWC if self._is_full else x_NHWC[self._place]
        if isinstance(outer, CellGrid):
            assert into_BHWC is not None, "maps on cells are put into others"
            return into_BHWC.index_copy(0, outer._places_of(self), kept)
        if into_BHWC is None:
            side, channels = x_NHWC.shape[1], x_NHWC.shape[-1]
            shape = len(self.active_BGG), self.rows * side, self.columns * side, channels
            maps = x_NHWC.new_zeros(shape)
        else:
            maps = into_BHWC.clone()
        self._as_cells(maps)[self._index] = kept
        return maps

    def convolve(self, conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, S, S) by a convolution that sees zeros at pruned tokens."""
        if conv.kernel_size == (1, 1):
            return conv(x_NCHW)
        x_NSSC = to_channels_last(x_NCHW)
        if x_NSSC.shape[1] < SMALLEST_SIDE:
            whole = conv(to_channels_first(self.put(x_NSSC)))
            return to_channels_first(self.take(to_channels_last(whole)))
        assert isinstance(conv.padding[0], int)
        bordered = to_channels_first(self._with_border(x_NSSC, conv.padding[0]))
        return functional.conv2d(
            bordered, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups
        )

    def normalise(self, norm: nn.BatchNorm2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, S, S) by a batch norm whose statistics, in training, are of kept tokens."""
        if not norm.training:
            return norm(x_NCHW)
        return batch_norm_of(norm, x_NCHW, self.is_real_N[:, None, None, None])

    def mean(self, x_NCHW: Tensor) -> Tensor:
        """Return the mean over the kept tokens of each tile, zero where there are none: (B, C)."""
        x_NCHW = self._filled(x_NCHW, 0.0)
        sums = self._by_tile(x_NCHW.sum((2, 3))).sum(1)
        tokens = self.active_BGG.flatten(1).sum(1) * x_NCHW.shape[-1] ** 2
        return sums / tokens.clamp(min=1)[:, None]

    def highest(self, x_NCHW: Tensor) -> Tensor:
        """Return the maximum over the kept tokens of each tile, zero where there are none."""
        found = self._filled(x_NCHW, -torch.inf).amax((2, 3))
        return self._extreme(self._by_tile(found).amax(1))

    def lowest(self, x_NCHW: Tensor) -> Tensor:
        """Return the minimum over the kept tokens of each tile, zero where there are none."""
        found = self._filled(x_NCHW, torch.inf).amin((2, 3))
        return self._extreme(self._by_tile(found).amin(1))

    def spread(self, vectors_BC: Tensor) -> Tensor:
        """Return the vector of its tile beside each cell: (N, C, 1, 1)."""
        return vectors_BC.repeat_interleave(self.num_cells, 0)[:, :, None, None]

    def size_of(self, x_NCHW: Tensor) -> tuple[int, int]:
        """Return height and width of the whole map that these cells are of."""
        return self.rows * x_NCHW.shape[-2], self.columns * x_NCHW.shape[-1]

    def cut(self, map_HW: Tensor) -> Tensor:
        """Return a map that all tiles share at their tokens: (N, 1, S, S)."""
        tiles = map_HW[None, :, :, None].expand(len(self.active_BGG), -1, -1, -1)
        return to_channels_first(self.take(tiles))

    def flatten(self, x_NHWD: Tensor) -> Tensor:
        """Return the tokens of each tile in a row, cell after cell: (B, L, D)."""
        return x_NHWD.reshape(len(self.active_BGG), -1, x_NHWD.shape[-1])

    def paths(self, name: str, line_order: LineOrder, x_NHWD: Tensor) -> Paths:
        """Return how a set of paths goes over the rows of :meth:`flatten`, (B, K, L) each."""
        side = x_NHWD.shape[1]
        key = name, line_order, side
        if key not in self._tables:
            height, width = self.rows * side, self.columns * side
            order = order_table(name, height, width, line_order=line_order, device=x_NHWD.device)
            place = self._place_of_tokens(side)
            size = self.num_cells * side**2
            table = kept_tables(order, place >= 0, size=size, place=place)
            self._tables[key] = Paths(table.order, table.gap if self.alignment == "gap" else None)
        return self._tables[key]

    def at_tokens(self, values_KLN: Tensor, x_NHWD: Tensor) -> Tensor:
        """Return values of each pixel of the whole map for each token: (B, K, L, N)."""
        side = x_NHWD.shape[1]
        maps = values_KLN.transpose(0, 1).unflatten(0, (self.rows * side, self.columns * side))
        tiles = maps.flatten(2)[None].expand(len(self.active_BGG), -1, -1, -1)
        tokens = self.flatten(self.take(tiles))
        return tokens.unflatten(-1, (values_KLN.shape[0], -1)).transpose(1, 2)

    @property
    def _index(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._tile, self._cell // self.columns, self._cell % self.columns

    def _as_cells(self, maps_BHWC: Tensor) -> Tensor:
        """View maps as cells: (B, rows, columns, S, S, C)."""
        cells = maps_BHWC.unflatten(2, (self.columns, -1)).unflatten(1, (self.rows, -1))
        return cells.transpose(2, 3)

    def _places_of(self, inner: "CellGrid") -> Tensor:
        """Return where the kept cells of a grid inside this one are here, among all N."""
        place = self.place_BG[inner._tile, inner._cell]
        return inner._tile * self.num_cells + place

    def _place_of_tokens(self, side: int) -> Tensor:
        """Return for each token of the whole map its row in :meth:`flatten`, or -1: (B, H W)."""
        cell, inside = _tokens_of(self.rows, self.columns, side, self.place_BG.device)
        place = self.place_BG[:, cell]
        return torch.where(place < 0, -1, place * side**2 + inside)

    def _with_border(self, x_NSSC: Tensor, border: int) -> Tensor:
        """Return cells with what their neighbours have beside them, zeros where none is kept."""
        side = x_NSSC.shape[1]
        bordered = functional.pad(x_NSSC, (0, 0, border, border, border, border))
        neighbours, exists = self._neighbours
        near = {-1: slice(side - border, None), 0: slice(None), 1: slice(border)}
        there = {-1: slice(border), 0: slice(border, border + side), 1: slice(border + side, None)}
        for number, (down, right) in enumerate(_AROUND):
            piece = x_NSSC[:, near[down], near[right]][neighbours[number]]
            bordered[:, there[down], there[right]] = piece.where(exists[number], 0)
        return bordered

    @cached_property
    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """The cells around each as places among all N (8, N), and whether they are kept."""
        shape = -1, self.rows, self.columns
        around = functional.pad(self.place_BG.view(shape), (1, 1, 1, 1), value=-1)
        tile, row, column = self._index
        found = torch.stack([around[tile, row + 1 + i, column + 1 + j] for i, j in _AROUND])
        places = found.new_zeros(len(_AROUND), len(self.active_BGG) * self.num_cells)
        exists = torch.zeros_like(places, dtype=torch.bool)
        exists[:, self._place] = found >= 0
        places[:, self._place] = torch.where(found < 0, 0, tile * self.num_cells + found)
        return places, exists[..., None, None, None]

    def _by_tile(self, vectors_NC: Tensor) -> Tensor:
        return vectors_NC.unflatten(0, (len(self.active_BGG), self.num_cells))

    def _filled(self, x_NCHW: Tensor, value: float) -> Tensor:
        """Return maps with a value in the padding."""
        return x_NCHW if self._is_full else x_NCHW.where(self.is_real_N[:, None, None, None], value)

    def _extreme(self, found_BC: Tensor) -> Tensor:
        return found_BC.where(self.active_BGG.flatten(1).any(1)[:, None], 0)


@lru_cache(maxsize=64)
def _tokens_of(rows: int, columns: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for each token of a whole map its cell, and its number inside it: (H W,) each."""
    with torch.inference_mode(False):
        row = torch.arange(rows * side, device=device)[:, None]
        column = torch.arange(columns * side, device=device)
        cell = row // side * columns + column // side
        return cell.flatten(), (row % side * side + column % side).flatten()
