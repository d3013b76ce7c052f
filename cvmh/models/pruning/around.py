"""Which tokens lie around those of a cell, as constants: in which cell near it, and where in that.

S tokens along a cell's side. Cells near one are those up to R away, numbered row by row from the
top left one: (2 R + 1)^2 of them.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Around(NamedTuple):
    """Tokens around a cell.

    Attributes:
        near: The number of the cell near this one that each lies in, int32.
        inside: The number of the token in that cell, int32.
        distance: R, how many cells away the last of them lie.
    """

    near: Tensor
    inside: Tensor
    distance: int


@lru_cache(maxsize=64)
def cells_with_border(side: int, border: int, device: torch.device) -> Around:
    """Return the tokens of a cell and those around it up to a distance, (S + 2 border, same)."""
    with torch.inference_mode(False):
        place = torch.arange(-border, side + border, device=device)
        row, column = place[:, None], place[None, :]
        distance = -(-border // side)
        wide = 2 * distance + 1
        near = (row.div(side, rounding_mode="floor") + distance) * wide
        near = near + column.div(side, rounding_mode="floor") + distance
        inside = row.remainder(side) * side + column.remainder(side)
        return Around(near.int(), inside.int(), distance)
