"""Flips and turns of tiles, for scores that are averaged over them.

Legend: B batch, C channels, H height, W width.
"""

from typing import NamedTuple

import torch

from cvmh.geo.tiling import TilePlan


class Transform(NamedTuple):
    """Quarter turns to the left, after an optional flip from left to right."""

    flip: bool
    turns: int

    def apply(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the flipped and turned maps."""
        flipped = maps_BCHW.flip(3) if self.flip else maps_BCHW
        turned = flipped.rot90(self.turns, (2, 3)) if self.turns else flipped
        return turned.contiguous()

    def undo(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the maps as they were before :meth:`apply`."""
        turned = maps_BCHW.rot90(-self.turns, (2, 3)) if self.turns else maps_BCHW
        return turned.flip(3) if self.flip else turned


IDENTITY = Transform(flip=False, turns=0)


def transforms(plan: TilePlan) -> tuple[Transform, ...]:
    """Return the eight symmetries of a square, or the four of tiles that are not square."""
    is_square = all(s.input_height == s.input_width for s in plan.stripes())
    turns = range(4) if is_square else (0, 2)
    return tuple(Transform(flip, count) for flip in (False, True) for count in turns)
