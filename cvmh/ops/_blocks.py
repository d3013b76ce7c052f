"""Reading the inputs of a scan block by block in path order, and writing results back to maps.

Legend: B batch, L pixels, D channels, K paths, N states, R rank of dt; S steps of Q chunks make
a block, M = S Q B rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.ops._chunks import ChunkPlan


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of the inputs in path order.

    Attributes:
        x: (K, M, D).
        dt: Step after weight, bias and softplus, (K, M, D).
        decay_dt: G, the step that the state decays by, (K, M, D).
        B: (K, M, N, 1).
        C: (K, M, N, 1).
        decay: exp(A G), (K, M, N, D).
    """

    x: Tensor
    dt: Tensor
    decay_dt: Tensor
    B: Tensor
    C: Tensor
    decay: Tensor


@dataclass(frozen=True, kw_only=True)
class Maps:
    """The inputs of a scan in pixel order, with the plan that puts them in path order.

    The small tensors are already of the accumulator's dtype; x, dt, B, C and decay_dt are as
    given.
    """

    x: Tensor
    dt: Tensor
    A_KND: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    gap_dt: Tensor | None
    decay_dt: Tensor | None
    dt_bias: Tensor | None
    dt_weight: Tensor | None
    dt_softplus: bool
    plan: ChunkPlan

    @property
    def dtype(self) -> torch.dtype:
        """The accumulator's dtype."""
        return self.A_KND.dtype

    def gather(self, values: Tensor, block: int, *, per_path: bool = True) -> Tensor:
        """Return the rows (K, M, ...) of one block, zero where they are padding.

        Args:
            values: (B, K, L, ...) if ``per_path``, else (B, L, ...).
            block: Which block.
            per_path: Whether each path has its own map.
        """
        index = self.plan.path_rows if per_path else self.plan.rows
        rows = values.flatten(0, -2).index_select(0, index[block]).to(self.dtype)
        rows = rows.view(self.plan.num_paths, -1, values.shape[-1])
        return self.plan.blank_padding(rows, block)

    def steps(self, block: int) -> Tensor:
        """Return dt of one block after weight, bias and softplus, (K, M, D)."""
        dt = given = self.gather(self.dt, block)
        if self.dt_weight is not None:
            dt = torch.bmm(dt, self.dt_weight)
        if self.dt_bias is not None:
            dt = dt + self.dt_bias[:, None]
        if self.dt_softplus:
            dt = functional.softplus(dt)
        return dt if dt is given else self.plan.blank_padding(dt, block)

    def read(self, block: int, dt: Tensor) -> Block:
        """Gather one block whose steps are known, and compute its decays."""
        decay_dt = dt
        if self.decay_dt is not None:
            decay_dt = self.gather(self.decay_dt, block)
        elif self.plan.gap is not None and self.gap_dt is not None:
            decay_dt = torch.addcmul(dt, self.plan.gap[block], self.gap_dt[:, None])
        return Block(
            x=self.gather(self.x, block, per_path=False),
            dt=dt,
            decay_dt=decay_dt,
            B=self.gather(self.B, block)[..., None],
            C=self.gather(self.C, block)[..., None],
            decay=torch.mul(decay_dt[:, :, None], self.A_KND[:, None]).exp_(),
        )

    def chunk_decay(self, block: Block) -> Tensor:
        """Return the decay over each whole chunk, (K, Q, B, N, D)."""
        # The exponential of a sum rounds once, a product of exponentials at every step.
        total = self.plan.by_step(block.decay_dt).sum(dim=1)[..., None, :]
        return (total * self.A_KND[:, None, None]).exp_()


def new_rows(plan: ChunkPlan, width: int, dtype: torch.dtype) -> Tensor:
    """Return storage for the rows of all blocks, and a last row of zeros for pixels not visited."""
    rows = torch.empty(plan.num_rows + 1, width, dtype=dtype, device=plan.rows.device)
    rows[-1] = 0
    return rows


def to_map(rows: Tensor, plan: ChunkPlan, *, merge: bool) -> Tensor:
    """Return rows as a map (B, K, L, ...), or summed over the paths as (B, L, ...)."""
    num_batch, num_paths, length = plan.inverse.shape
    if not merge:
        return rows.index_select(0, plan.inverse.flatten()).view(
            *plan.inverse.shape, rows.shape[-1]
        )
    # Gathers the K rows of a pixel and adds them in one go.
    bags = plan.inverse.transpose(1, 2).reshape(-1, num_paths)
    return functional.embedding_bag(bags, rows, mode="sum").view(num_batch, length, rows.shape[-1])


def sum_states(values: Tensor, factors: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return the products of (K, M, N, D) and (K, M or 1, N, 1 or D), summed over N."""
    if values.shape[2] == 1:
        return torch.mul(values[:, :, 0], factors[:, :, 0], out=out)
    return torch.sum(values * factors, dim=2, out=out)
