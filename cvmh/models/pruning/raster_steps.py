"""Scans whose steps take dt, B and C in raster order, over kept tokens: PlainMamba's weights.

There a path brings the input along its snake, but step t takes dt, B and C of pixel t of the rows,
wherever the path is by then. So a kept token may get them of a pruned one, which has the dt of a
zero token and neither B nor C, and a gap decays by the dt of whatever kept pixels its steps count.

B tiles, K paths, L tokens in memory, P pixels of the whole map, T steps of a path.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.ops.traversal import kept_tables


class RasterSteps(NamedTuple):
    """Whose dt, B and C the steps of a scan take, by tokens in memory.

    Attributes:
        giver: The token whose dt, B and C are taken where a path visits this one, (B or 1, K, L);
            -1: those of a zero token.
        end: The token up to which the state decays by the dt of this one, (B, K, L); L: to none.
            None: nothing is leapt over.
        num_zeros: By how many zero tokens the state decays before this one besides, (B, K, L).
    """

    giver: Tensor
    end: Tensor | None = None
    num_zeros: Tensor | None = None

    def of_givers(self, values_BKLN: Tensor) -> Tensor:
        """Return for each token the values of its giver, zeros where it has none."""
        if self.end is None and len(self.giver) == 1:
            return at_steps(values_BKLN, self.giver[0])
        giver = self.giver[..., None]
        values = values_BKLN.expand(-1, giver.shape[1], -1, -1)
        taken = values.gather(2, giver.clamp(min=0).expand(-1, -1, -1, values.shape[-1]))
        return taken.where(giver >= 0, 0)

    def decay(self, dt_BKLD: Tensor, zero_KD: Tensor) -> Tensor | None:
        """Return the steps that the state decays by before each token, None if they are its own.

        Args:
            dt_BKLD: steps of the tokens in memory, after softplus; one path stands for all.
            zero_KD: that of a zero token.
        """
        if self.end is None or self.num_zeros is None:
            return None
        end, channels = self.end, dt_BKLD.shape[-1]
        dt = dt_BKLD.expand(-1, end.shape[1], -1, -1)
        # What decays to no token falls into a spare last one.
        sums = dt.new_zeros(*end.shape[:2], end.shape[2] + 1, channels)
        sums = sums.scatter_add(2, end[..., None].expand(-1, -1, -1, channels), dt)[:, :, :-1]
        return sums + self.num_zeros[..., None] * zero_KD[:, None]


def at_steps(values_BKTN: Tensor, step_KL: Tensor) -> Tensor:
    """Return for each token the values of the step at which its path visits it: (B, K, L, N)."""
    path = torch.arange(step_KL.shape[0], device=step_KL.device)[:, None]
    return values_BKTN[:, path, step_KL.long()]


def leaping_steps(order_KP: Tensor, place_BP: Tensor, *, size: int) -> RasterSteps:
    """Return the steps of the complete paths as kept tokens see them.

    Args:
        order_KP: complete paths.
        place_BP: where each pixel's token lies in memory, -1 where it is pruned.
        size: L.
    """
    is_kept = place_BP >= 0
    table = kept_tables(order_KP, is_kept, size=size, place=place_BP)
    shape = place_BP.shape[0], *order_KP.shape
    # Padding, and what is pruned, fall into a spare last column.
    visited = torch.where(table.order < 0, size, table.order).long()
    place = place_BP[:, None].expand(shape)
    giver = _spread(visited, place.gather(2, table.step), size=size, fill=-1)
    comes_by = is_kept.index_select(1, order_KP.flatten()).view(shape).long()
    # The first kept step that is not before step t.
    number = comes_by.cumsum(2) - comes_by
    token = functional.pad(visited, (0, 1), value=size).gather(2, number)
    end = _spread(torch.where(place < 0, size, place).long(), token, size=size, fill=size)
    ones = torch.ones_like(end)
    blank = end.new_zeros(*end.shape[:2], size + 1)
    counted = blank.scatter_add(2, end, ones)[..., :size]
    length = _spread(visited, table.gap.long() + 1, size=size, fill=0)
    return RasterSteps(giver, end, length - counted)


def closed_steps(order_BKT: Tensor, rows_B1T: Tensor, *, size: int) -> RasterSteps:
    """Return steps that count kept tokens only: step t takes what the t-th of the rows has."""
    visited = torch.where(order_BKT < 0, size, order_BKT).long()
    return RasterSteps(_spread(visited, rows_B1T.expand_as(visited), size=size, fill=0))


def _spread(at_BKT: Tensor, values_BKT: Tensor, *, size: int, fill: int) -> Tensor:
    """Return values at given tokens (B, K, size), the others filled."""
    blank = values_BKT.new_full((*at_BKT.shape[:2], size + 1), fill)
    return blank.scatter(2, at_BKT, values_BKT)[..., :size]
