"""One pass of maps through blocks that run on fewer and fewer tokens, by a published method.

B tiles, M cells of each, S tokens along a cell's side, C channels, H W whole map, G cells of it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cvmh.models.pruning.choosing import fold, take_rows
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.models.pruning.masked import MaskedGrid
from cvmh.models.pruning.published import METHODS, ReductionSettings
from cvmh.models.pruning.scores import Meter, clipped, count_kept, highest_in_cells
from cvmh.models.pruning.tokens import NumberedGrid


class Course:
    """One pass of maps through blocks that all run on everything."""

    def run(self, blocks: Iterable[nn.Module], x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) by blocks in a row."""
        for block in blocks:
            x_BHWC = block(x_BHWC)
        return x_BHWC


def start_course(
    settings: ReductionSettings | None, *, rows: int, columns: int, is_masked: bool
) -> Course:
    """Return the course of a batch whose maps have so many cells."""
    if settings is None or settings.is_dense:
        return Course()
    return ReductionCourse(settings, rows=rows, columns=columns, is_masked=is_masked)


class ReductionCourse(Course):
    """What is left of the tokens of a batch, from block to block and from stage to stage.

    A token that was dropped keeps its last value in whole maps; one that was merged has there the
    value of the one that stands for it. All tiles keep as many, whatever is in them.

    Args:
        settings: the method, completed for the network's depth.
        rows: of cells in a whole map.
        columns: of cells in a whole map.
        is_masked: whether blocks run on whole maps with masks, as in training, with the same
            values; without alignment there is no such mask.
    """

    def __init__(
        self, settings: ReductionSettings, *, rows: int, columns: int, is_masked: bool
    ) -> None:
        assert settings.keep is not None and settings.alignment is not None
        self.settings, self.method = settings, METHODS[settings.method]
        self.rows, self.columns = rows, columns
        self.alignment = settings.alignment
        self.is_masked = is_masked and self.alignment == "gap"
        self.grid: Grid = WHOLE
        self.num_blocks = 0
        # Which cells are left, (B, M), the cell that stands for each cell of the whole map, (B, G),
        # and how many stand behind those that are left, (B, M).
        self.cells_BM: Tensor | None = None
        self.owner_BG: Tensor | None = None
        self.weight_BM: Tensor | None = None

    def run(self, blocks: Iterable[nn.Module], x_BHWC: Tensor) -> Tensor:
        """Map whole maps (B, H, W, C) by blocks, each on the tokens that are left."""
        whole, x = x_BHWC, self.grid.take(x_BHWC)
        for block in blocks:
            self.num_blocks += 1
            if self.num_blocks not in (self.settings.layers or ()):
                x = block(x, self.grid)
                continue
            meter = ReductionMeter(self.settings.score)
            y = block(x, self.grid, meter)
            whole = self._reduced(self.grid.put(y, whole), meter.score_of(y - x))
            x = self.grid.take(whole)
        return self._spread(self.grid.put(x, whole))

    def _reduced(self, whole_BHWC: Tensor, score_NHW: Tensor | None) -> Tensor:
        """Leave out cells, and return whole maps in which the others have their new values."""
        if self.cells_BM is None or self.owner_BG is None or self.weight_BM is None:
            number = torch.arange(self.rows * self.columns, device=whole_BHWC.device)
            self.owner_BG = self.cells_BM = number.expand(len(whole_BHWC), -1)
            self.weight_BM = torch.ones_like(self.cells_BM, dtype=whole_BHWC.dtype)
        assert self.settings.keep is not None
        num_kept = count_kept(self.cells_BM.shape[1], self.settings.keep)
        # Cells of those who merge are single tokens.
        x_BMC = take_rows(whole_BHWC.flatten(1, 2), self.cells_BM) if self.method.merges else None
        choice = self.method.choose(self._by_cell(score_NHW, self.cells_BM), x_BMC, num_kept)
        cells_BT = self.cells_BM.gather(1, choice.kept_BT)
        if choice.target_BM is not None and x_BMC is not None:
            merged, weight = fold(x_BMC, self.weight_BM, choice.target_BM, num_kept=num_kept)
            everywhere = cells_BT[..., None].expand_as(merged)
            whole_BHWC = whole_BHWC.flatten(1, 2).scatter(1, everywhere, merged).view_as(whole_BHWC)
            goals = cells_BT.gather(1, choice.target_BM)
            heirs = torch.zeros_like(self.owner_BG).scatter(1, self.cells_BM, goals)
            self.owner_BG = heirs.gather(1, self.owner_BG)
            self.weight_BM = weight if self.method.is_weighted else torch.ones_like(weight)
        self.cells_BM, self.grid = cells_BT, self._grid_of(cells_BT)
        return whole_BHWC

    def _by_cell(self, score_NHW: Tensor | None, cells_BM: Tensor) -> Tensor:
        """Return the maximum over the tokens of each cell that is left, (B, M)."""
        if score_NHW is None:
            return torch.zeros_like(cells_BM, dtype=torch.float32)
        maps = self.grid.put(score_NHW[..., None])[..., 0]
        cells_BGG = highest_in_cells(maps, maps.shape[1] // self.rows)
        return cells_BGG.flatten(1).gather(1, cells_BM)

    def _grid_of(self, cells_BM: Tensor) -> Grid:
        grid = NumberedGrid(
            cells_BM, rows=self.rows, columns=self.columns, alignment=self.alignment
        )
        return MaskedGrid(grid.active_BGG) if self.is_masked else grid

    def _spread(self, whole_BHWC: Tensor) -> Tensor:
        """Return whole maps in which merged tokens have the value of what stands for them."""
        if not self.method.merges or self.owner_BG is None:
            return whole_BHWC
        return take_rows(whole_BHWC.flatten(1, 2), self.owner_BG).view_as(whole_BHWC)


class ReductionMeter(Meter):
    """Is shown what a block computes, and scores its tokens, high where they matter."""

    def score_of(self, added_NHWC: Tensor) -> Tensor | None:
        """Return the score of each token, given what the block added to its input."""
        return clipped(added_NHWC.detach()) if self.score == "block_output" else self.tokens_NHW
