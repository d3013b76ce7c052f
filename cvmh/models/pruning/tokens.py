"""As many cells of each tile, given by their numbers: what fixed ratios keep.

B tiles, M cells of each in memory, N = B M cells, S tokens along a cell's side, C channels,
G = rows columns cells of a whole map.
"""

import torch
from torch import Tensor

from cvmh.models.pruning.cells import Alignment, CellGrid


class NumberedGrid(CellGrid):
    """Kept cells, one after the other, as many of each tile: maps are (B M, S, S, C).

    Nothing waits for the device, and shapes are known without values, so that costs can be counted.
    Cells may be single tokens, those of a PlainMamba.

    Args:
        cells_BM: numbers of the kept cells of each tile, row by row, rising.
        rows: of cells in a whole map.
        columns: of cells in a whole map.
        alignment: as of :class:`CellGrid`.
    """

    def __init__(
        self, cells_BM: Tensor, *, rows: int, columns: int, alignment: Alignment = "gap"
    ) -> None:
        batch, self.num_cells = cells_BM.shape
        self.rows, self.columns, self.alignment = rows, columns, alignment
        device = cells_BM.device
        self._place = torch.arange(batch * self.num_cells, device=device)
        places = torch.arange(self.num_cells, device=device).expand_as(cells_BM)
        blank = torch.full((batch, rows * columns), -1, device=device)
        self.place_BG = blank.scatter(1, cells_BM, places)
        self.active_BGG = (self.place_BG >= 0).view(batch, rows, columns)
        self._tile = self._place // max(self.num_cells, 1)
        self._cell = cells_BM.flatten()
        self._is_full = True
        self._start_tables()
