"""Which tokens lie around those of a cell, as constants: in which cell near it, and where in that.

S tokens along a cell's side. Cells near one are those up to R away, numbered row by row from the
top left one: (2 R + 1)^2 of them.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Around(NamedTuple):
    """Tokens around a cell or its tokens.

    Attributes:
        near: The number of the cell near this one that each lies in.
        inside: The number of the token in that cell.
        target: Where it belongs in a cell with a border, as the number of a token there.
    """

    near: Tensor
    inside: Tensor
    target: Tensor


def reach(side: int, border: int) -> int:
    """Return how many cells away a border of so many tokens ends."""
    return -(-border // side)


@lru_cache(maxsize=64)
def windows_of_tokens(side: int, size: int, device: torch.device) -> Around:
    """Return the tokens in the window around each token of a cell, (S^2, size^2)."""
    with torch.inference_mode(False):
        token, offset = torch.arange(side, device=device), torch.arange(size, device=device)
        place = token[:, None] + offset - size // 2
        found = _found(place[:, None, :, None], place[None, :, None, :], side, size // 2)
        return Around(*(values.flatten(2).flatten(0, 1) for values in found))


@lru_cache(maxsize=64)
def border_of_cell(side: int, border: int, device: torch.device) -> Around:
    """Return the tokens around a cell up to a distance, all that is not inside: (J,)."""
    with torch.inference_mode(False):
        place = torch.arange(-border, side + border, device=device)
        is_inside = (place >= 0) & (place < side)
        found = _found(place[:, None], place[None, :], side, border)
        is_around = ~(is_inside[:, None] & is_inside).flatten()
        return Around(*(values.flatten()[is_around] for values in found))


def _found(row: Tensor, column: Tensor, side: int, border: int) -> Around:
    distance = reach(side, border)
    wide = 2 * distance + 1
    near = (row.div(side, rounding_mode="floor") + distance) * wide
    near = near + column.div(side, rounding_mode="floor") + distance
    inside = row.remainder(side) * side + column.remainder(side)
    target = (row + border) * (side + 2 * border) + column + border
    return Around(near, inside, target)
