"""Token pruning: networks that compute only the cells of a tile that are kept."""

from cvmh.models.pruning.ability import can_prune
from cvmh.models.pruning.cells import CellGrid
from cvmh.models.pruning.grid import CELL, WHOLE, Grid
from cvmh.models.pruning.masked import MaskedGrid

__all__ = ["CELL", "WHOLE", "CellGrid", "Grid", "MaskedGrid", "can_prune"]
