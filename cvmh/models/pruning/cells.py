"""Kept cells alone: variant E1, the values of the masked network for the cost of what is kept.

B tiles, M cells of each in memory, N = B M cells, S tokens along a cell's side, C channels,
H W whole map, G cells along a side of it, D inner channels, K paths, L = M S S tokens of a tile.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.pruning.around import cells_with_border
from cvmh.models.pruning.grid import Grid, LineOrder, Paths, batch_norm_of
from cvmh.ops.convolution import convolve_patches, is_convolved_in_place
from cvmh.ops.traversal import kept_tables, order_table

Alignment = Literal["gap", "none"]

# Cells whose side with a border is so many times theirs are put into whole maps for a convolution.
WIDEST = 1.5
# The place of no cell: rows of cells have at most 2^10 tokens, and numbers of 32 bit.
NOWHERE = -(1 << 20)


class _Lines(NamedTuple):
    """Lines of S tokens of kept cells: their places in whole maps (B H G), and in cells (N S)."""

    whole: Tensor
    here: Tensor


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
        # At least one, of padding where nothing is kept: few layers bear maps of nothing.
        self.num_cells = max(1, most if size is None else size)
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
        self._start_tables()

    def _start_tables(self) -> None:
        self._tables: dict[tuple[str, str, int], Paths] = {}
        self._giver_tables: dict[tuple[str, str, int], Tensor] = {}
        self._line_tables: dict[int, _Lines] = {}
        self._around_tables: dict[tuple[int, int], Tensor] = {}
        self._near_tables: dict[int, Tensor] = {}

    @property
    def is_real_N(self) -> Tensor:
        """Which of the cells in memory are no padding: boolean (N,)."""
        counts = self.active_BGG.flatten(1).sum(1)
        numbers = torch.arange(self.num_cells, device=counts.device)
        return (numbers < counts[:, None]).flatten()

    def take(self, x_BHWC: Tensor, outer: Grid | None = None) -> Tensor:
        """Return the kept tokens of whole maps, or of those on an outer grid: (N, S, S, C)."""
        if isinstance(outer, CellGrid):
            kept = x_BHWC.index_select(0, outer._places_of(self))
        else:
            side, channels = x_BHWC.shape[1] // self.rows, x_BHWC.shape[-1]
            if x_BHWC.is_contiguous():
                lines = x_BHWC.view(-1, side * channels).index_select(0, self._lines(side).whole)
                kept = lines.view(-1, side, side, channels)
            else:
                # An image with its bands apart, most of which need not be laid out anew.
                cells = x_BHWC.unflatten(2, (self.columns, side)).unflatten(1, (self.rows, side))
                kept = cells.transpose(2, 3)[self._kept_of_tiles].contiguous()
        if self._is_full:
            return kept
        return kept.new_zeros(self._num_places, *kept.shape[1:]).index_copy(0, self._place, kept)

    def put(
        self, x_NHWC: Tensor, into_BHWC: Tensor | None = None, outer: Grid | None = None
    ) -> Tensor:
        """Return whole maps, or such on an outer grid, with these tokens; the rest is as given."""
        if isinstance(outer, CellGrid):
            assert into_BHWC is not None, "maps on cells are put into others"
            kept = x_NHWC if self._is_full else x_NHWC.index_select(0, self._place)
            return into_BHWC.index_copy(0, outer._places_of(self), kept)
        _, side, _, channels = x_NHWC.shape
        table, lines = self._lines(side), x_NHWC.reshape(-1, side * channels)
        if not self._is_full:
            lines = lines.index_select(0, table.here)
        shape = len(self.active_BGG), self.rows * side, self.columns * side, channels
        if into_BHWC is not None:
            maps = into_BHWC.reshape(-1, side * channels)
            return maps.index_copy(0, table.whole, lines).view(shape)
        maps = x_NHWC.new_zeros(shape).view(-1, side * channels)
        return maps.index_copy_(0, table.whole, lines).view(shape)

    def convolve(self, conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, S, S) by a convolution that sees zeros at pruned tokens."""
        if conv.kernel_size == (1, 1):
            return conv(x_NCHW)
        x_NSSC = to_channels_last(x_NCHW)
        side, border = x_NSSC.shape[1], conv.padding[0]
        assert isinstance(border, int)
        # Patches that are put together may be many times as large as cells.
        is_narrow = side + 2 * border <= WIDEST * side or is_convolved_in_place(
            x_NSSC, conv.weight, conv.bias, groups=conv.groups
        )
        if not (is_narrow and _is_plain(conv)):
            whole = to_channels_first(self.put(x_NSSC))
            return to_channels_first(self.take(to_channels_last(conv(whole))))
        maps = convolve_patches(
            x_NSSC.reshape(-1, x_NSSC.shape[-1]),
            self._around(side, border),
            *(conv.weight, conv.bias),
            stride=conv.stride[0],
            groups=conv.groups,
        )
        return to_channels_first(maps)

    def _around(self, side: int, border: int) -> Tensor:
        """Return the tokens of each cell and its border as rows of all, int32, negative for none.

        (N, S + 2 border, S + 2 border).
        """
        if (side, border) not in self._around_tables:
            near, inside, distance = cells_with_border(side, border, self._place.device)
            first_rows = self._near(distance) * side**2
            rows = first_rows.index_select(1, near.flatten()).view(-1, *near.shape)
            self._around_tables[side, border] = rows.add_(inside)
        return self._around_tables[side, border]

    def normalise(self, norm: nn.BatchNorm2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, S, S) by a batch norm whose statistics, in training, are of kept tokens."""
        if not norm.training:
            return norm(x_NCHW)
        return batch_norm_of(norm, x_NCHW, self.is_real_N[:, None, None, None])

    def mean(self, x_NCHW: Tensor) -> Tensor:
        """Return the mean over the kept tokens of each tile, zero where there are none: (B, C)."""
        if self._is_full:
            return self._by_tile(x_NCHW).mean((1, 3, 4))
        real = x_NCHW.where(self.is_real_N[:, None, None, None], 0)
        sums = self._by_tile(real).sum((1, 3, 4))
        tokens = self.active_BGG.flatten(1).sum(1) * x_NCHW.shape[-1] ** 2
        return sums / tokens.clamp(min=1)[:, None]

    def num_tiles(self, x_NHWC: Tensor) -> int:
        """Return how many tiles the cells are of: B."""
        return len(self.active_BGG)

    def spread(self, vectors_BC: Tensor) -> Tensor:
        """Return the vector of its tile beside each cell: (N, C, 1, 1), or one for all."""
        if len(vectors_BC) > 1:
            vectors_BC = vectors_BC.repeat_interleave(self.num_cells, 0)
        return vectors_BC[:, :, None, None]

    def size_of(self, x_NCHW: Tensor) -> tuple[int, int]:
        """Return height and width of the whole map that these cells are of."""
        return self.rows * x_NCHW.shape[-2], self.columns * x_NCHW.shape[-1]

    def flatten(self, x_NHWD: Tensor) -> Tensor:
        """Return the tokens of each tile in a row, cell after cell: (B, L, D)."""
        return x_NHWD.reshape(len(self.active_BGG), -1, x_NHWD.shape[-1])

    def kept_tokens(self, x_NHWD: Tensor) -> Tensor | None:
        """Return which rows of :meth:`flatten` are no padding, (B, L), or None if all are none."""
        if self._is_full:
            return None
        is_real = self.is_real_N.view(len(self.active_BGG), -1)
        return is_real.repeat_interleave(x_NHWD.shape[1] ** 2, dim=1)

    def paths(self, name: str, line_order: LineOrder, x_NHWD: Tensor) -> Paths:
        """Return how a set of paths goes over the rows of :meth:`flatten`, (B, K, L) each."""
        side = x_NHWD.shape[1]
        key = name, line_order, side
        if key not in self._tables:
            height, width = self.rows * side, self.columns * side
            order = order_table(name, height, width, line_order=line_order, device=x_NHWD.device)
            place = self._place_of_tokens(side)
            size = self.num_cells * side**2
            # Tables of inference mode would be checked at each scan anew.
            with torch.inference_mode(False):
                table = kept_tables(order, place >= 0, size=size, place=place)
            self._tables[key] = Paths(table.order, table.gap if self.alignment == "gap" else None)
        return self._tables[key]

    @property
    def has_gaps(self) -> bool:
        """Whether scans leap over what is pruned, and so do not count it as steps."""
        return self.alignment == "gap"

    def givers(self, name: str, line_order: LineOrder, x_NHWD: Tensor) -> Tensor:
        """Return which token's number is that of the step at which a path visits each."""
        side = x_NHWD.shape[1]
        key = name, line_order, side
        if key not in self._giver_tables:
            order = self.paths(name, line_order, x_NHWD).order
            rows = self.paths("single", line_order, x_NHWD).order.expand_as(order).long()
            size = self.num_cells * side**2
            # Padding falls into a spare last column.
            blank = rows.new_zeros(*order.shape[:2], size + 1)
            givers = blank.scatter(2, torch.where(order < 0, size, order).long(), rows)
            self._giver_tables[key] = givers[..., :size].clamp(min=0)
        return self._giver_tables[key]

    def at_tokens(self, values_KLN: Tensor, x_NHWD: Tensor) -> Tensor:
        """Return values of each pixel of the whole map for each token: (B, K, L, N)."""
        side = x_NHWD.shape[1]
        maps = values_KLN.transpose(0, 1).unflatten(0, (self.rows * side, self.columns * side))
        tiles = maps.flatten(2)[None].expand(len(self.active_BGG), -1, -1, -1)
        tokens = self.flatten(self.take(tiles))
        return tokens.unflatten(-1, (values_KLN.shape[0], -1)).transpose(1, 2)

    @property
    def _num_places(self) -> int:
        return len(self.active_BGG) * self.num_cells

    @property
    def _kept_of_tiles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return tile, row and column of each kept cell."""
        return self._tile, self._cell // self.columns, self._cell % self.columns

    def _places_of(self, inner: "CellGrid") -> Tensor:
        """Return where the kept cells of a grid inside this one are here, among all N."""
        place = self.place_BG[inner._tile, inner._cell]
        return inner._tile * self.num_cells + place

    def _place_of_tokens(self, side: int) -> Tensor:
        """Return for each token of the whole map its row in :meth:`flatten`, or -1: (B, H W)."""
        cell, inside = _tokens_of(self.rows, self.columns, side, self.place_BG.device)
        place = self.place_BG[:, cell]
        return torch.where(place < 0, -1, place * side**2 + inside)

    def _lines(self, side: int) -> _Lines:
        """Return where the lines of kept cells are in whole maps, and here."""
        if side not in self._line_tables:
            number = torch.arange(side, device=self._place.device)
            tile, row, column = self._kept_of_tiles
            first = (tile * self.rows + row) * side
            whole = (first[:, None] + number) * self.columns + column[:, None]
            here = self._place[:, None] * side + number
            self._line_tables[side] = _Lines(whole.flatten(), here.flatten())
        return self._line_tables[side]

    def _near(self, distance: int) -> Tensor:
        """Return the places of the cells around each of all N, far below zero where none is.

        So far that all rows counted from there are negative.
        """
        if distance not in self._near_tables:
            first = torch.arange(len(self.active_BGG), device=self._place.device)
            first = first[:, None] * self.num_cells
            places = torch.where(self.place_BG < 0, NOWHERE, self.place_BG + first).int()
            places = places.view(-1, self.rows, self.columns)
            places = functional.pad(places, (distance,) * 4, value=NOWHERE)
            wide = 2 * distance + 1
            windows = places.unfold(1, wide, 1).unfold(2, wide, 1)
            near = windows[self._kept_of_tiles].flatten(1)
            if not self._is_full:
                nothing = near.new_full((self._num_places, near.shape[1]), NOWHERE)
                near = nothing.index_copy_(0, self._place, near)
            self._near_tables[distance] = near
        return self._near_tables[distance]

    def _by_tile(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.unflatten(0, (len(self.active_BGG), self.num_cells))


def _is_plain(conv: nn.Conv2d) -> bool:
    is_square = all(len(set(sides)) == 1 for sides in (conv.kernel_size, conv.stride))
    return conv.dilation == (1, 1) and is_square


class _Tokens(NamedTuple):
    """For each token of a whole map its cell, and its number inside it."""

    cell: Tensor
    inside: Tensor


@lru_cache(maxsize=64)
def _tokens_of(rows: int, columns: int, side: int, device: torch.device) -> _Tokens:
    """Return where the tokens of a map of so many cells lie, (H W,) each."""
    with torch.inference_mode(False):
        row = torch.arange(rows * side, device=device)[:, None]
        column = torch.arange(columns * side, device=device)
        cell = row // side * columns + column // side
        inside = row % side * side + column % side
        return _Tokens(cell.flatten(), inside.flatten())
