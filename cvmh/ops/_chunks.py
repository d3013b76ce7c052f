"""How the torch backend cuts paths into blocks and chunks, and the row indices to read them.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path. A path is a sequence
of ``num_blocks`` blocks; a block is Q chunks of S consecutive steps each, held as
(K, S, Q, B), so that one slice holds the same step of all chunks. Rows of a block are M = S Q B.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Sizes(NamedTuple):
    """How many values one vectorised step and one block should hold."""

    step: int
    block: int


# CPU: a step must outweigh the call of an operator, and the dozen buffers of a block should stay
# in the second-level cache. CUDA: calls are all that counts, so steps as large as they come.
SIZES = {"cpu": Sizes(step=16_384, block=262_144)}
SIZES_ELSEWHERE = Sizes(step=1 << 19, block=1 << 25)


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """The row indices of a scan, block by block.

    Attributes:
        shape: K, S, Q and B.
        rows: Rows (num_blocks, K * M) of a map flattened to (B * L, ...).
        path_rows: Rows (num_blocks, K * M) of maps flattened to (B * K * L, ...).
        inverse: For each of (B, K, L) its row among all blocks' rows; for a pixel that is not
            visited the number of rows, where callers keep a row of zeros.
        padding: True (num_blocks, K, M) where a row is padding; None if no row is.
        gap: Leapt pixels (num_blocks, K, M, 1) as floats, if gaps are given.
    """

    shape: tuple[int, int, int, int]
    rows: Tensor
    path_rows: Tensor
    inverse: Tensor
    padding: Tensor | None
    gap: Tensor | None

    @property
    def num_blocks(self) -> int:
        """Number of blocks that a path is cut into."""
        return self.rows.shape[0]

    @property
    def num_rows(self) -> int:
        """Number of rows of all blocks."""
        return self.rows.numel()

    @property
    def num_paths(self) -> int:
        """Number of paths K."""
        return self.shape[0]

    @property
    def num_batch(self) -> int:
        """Number of images B."""
        return self.shape[3]

    def by_step(self, values: Tensor) -> Tensor:
        """View (K, M, ...) as (K, S, Q, B, ...)."""
        return values.view(*self.shape, *values.shape[2:])

    def split(self, rows: Tensor) -> list[Tensor]:
        """View the rows of all blocks, with one row to spare, as one (K, M, ...) a block."""
        num_paths, num_steps, num_chunks, num_batch = self.shape
        per_path = num_steps * num_chunks * num_batch
        blocks = rows[:-1].view(self.num_blocks, num_paths, per_path, *rows.shape[1:])
        return list(blocks.unbind())

    def blank_padding(self, values: Tensor, block: int) -> Tensor:
        """Set the rows (K, M, ...) of a block that are padding to zero, in place."""
        if self.padding is None:
            return values
        return values.masked_fill_(self.padding[block][..., None], 0)


def plan_chunks(
    paths: Tensor, gap: Tensor | None, *, length: int, lanes: int, dtype: torch.dtype
) -> ChunkPlan:
    """Return the plan for int64 paths (B, K, T) over maps of ``length`` pixels.

    Args:
        paths: Pixel indices, -1 for padding.
        gap: Integers (K, T) or (B, K, T), or None.
        length: Number of pixels L.
        lanes: Values that one step of one path of one image holds, D * N.
        dtype: The floating type of the gaps in the plan.
    """
    num_batch, num_paths, num_steps = paths.shape
    sizes = SIZES.get(paths.device.type, SIZES_ELSEWHERE)
    steps, chunks, blocks = _cut(num_steps, num_batch * num_paths * lanes, sizes)

    def arrange(values: Tensor, filler: int) -> Tensor:
        padded = functional.pad(values, (0, steps * chunks * blocks - num_steps), value=filler)
        parts = padded.reshape(num_batch, num_paths, blocks, chunks, steps)
        return parts.permute(2, 1, 4, 3, 0).contiguous()

    pixels = arrange(paths, -1)
    padding = pixels < 0
    # On a CUDA device the question would wait for the queue; there every block is masked.
    has_padding = pixels.device.type != "cpu" or bool(padding.any())
    batch = torch.arange(num_batch, device=paths.device)
    path = torch.arange(num_paths, device=paths.device)[:, None, None, None]
    pixels = pixels.clamp(min=0)
    path_rows = pixels + (batch * num_paths + path) * length

    total = pixels.numel()
    inverse = paths.new_full((num_batch * num_paths * length + 1,), total)
    target = torch.where(padding, inverse.numel() - 1, path_rows).flatten()
    inverse.scatter_(0, target, torch.arange(total, device=paths.device))
    if gap is not None:
        gap = arrange(gap.expand(num_batch, -1, -1), 0).masked_fill(padding, 0).to(dtype)
        gap = gap.flatten(2)[..., None]
    return ChunkPlan(
        shape=(num_paths, steps, chunks, num_batch),
        rows=(pixels + batch * length).flatten(1),
        path_rows=path_rows.flatten(1),
        inverse=inverse[:-1].reshape(num_batch, num_paths, length),
        padding=padding.flatten(2) if has_padding else None,
        gap=gap,
    )


def _cut(num_steps: int, values: int, sizes: Sizes) -> tuple[int, int, int]:
    """Return steps a chunk, chunks a block and blocks, for ``values`` values a step."""
    if num_steps == 0 or values == 0:
        return 1, 1, 0
    # More chunks than the root of the steps would cost more in carries than in steps.
    most_chunks = math.isqrt(num_steps)
    chunks = max(1, min(sizes.step // values, most_chunks))
    per_chunk = math.ceil(num_steps / chunks)
    steps = max(1, min(per_chunk, max(sizes.block // (chunks * values), 8)))
    blocks = math.ceil(num_steps / (steps * chunks))
    return math.ceil(num_steps / (blocks * chunks)), chunks, blocks
