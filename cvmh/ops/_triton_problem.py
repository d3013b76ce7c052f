"""A scan as the triton kernels read it, and their launches.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvmh.ops._triton_kernels import scan_local_kernel, scan_pass_kernel
from cvmh.ops._triton_plan import Pairing, Table, Tile, choose_tile, pair_paths, table_of
from cvmh.ops._triton_steps import Map, Paths, Sizes, Steps
from cvmh.ops.arguments import ScanArguments

# A program holds its columns of dt_weight in registers, and the backward of a higher rank would
# have too few left; there dt is expanded by one product of matrices before.
LARGEST_RANK = 8
# A kernel is one warp a program. More than one stage corrupts recurrent kernels on compute
# capability 10 and 12, and fused multiply-add shall not depend on triton's default.
OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}


def map_of(tensor: Tensor) -> Map:
    """Return how kernels read a tensor, (B, L, ...) for all paths or (B, K, L, ...)."""
    image, *path, pixel, last = tensor.stride()
    return Map(tensor, image, path[0] if path else 0, pixel, last)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A scan as the kernels read it.

    Attributes:
        A_KND: A for powers of two, (K, N, D).
        D: Zeros where none was given, like the small tensors of ``steps``.
        rank: Columns of dt that a weight expands, or 0.
        chunk: Steps of a chunk.
    """

    x: Map
    B: Map
    C: Map
    dt: Map
    steps: Steps
    paths: Paths
    sizes: Sizes
    A_KND: Tensor
    D: Tensor
    pairing: Pairing
    table: Table
    num_batch: int
    rank: int
    chunk: int
    softplus: bool
    has_gap: bool
    merge: bool

    @classmethod
    def of(cls, arguments: ScanArguments) -> "Problem":
        """Convert checked arguments; maps are taken as they are."""
        x, A, order = arguments.x, arguments.A, arguments.order
        (num_batch, length, num_channels), num_states = x.shape, A.shape[2]
        if order is None:
            order = torch.arange(length, dtype=torch.int32, device=x.device)[None]
            slots = torch.zeros(1, dtype=torch.int32, device=x.device)
            pairing = Pairing(slots, 1, True)
        else:
            pairing = pair_paths(order, num_pixels=length, merge=arguments.merge)
            order = order.to(torch.int32).contiguous()
        num_paths, num_steps = order.shape[-2:]
        gap = order if arguments.gap is None else arguments.gap.to(torch.int32).contiguous()

        A_KND = (A.float() * math.log2(math.e)).transpose(1, 2).contiguous()
        none = A_KND.new_zeros(num_paths, num_channels)
        D, gap_dt, bias = (
            none if one is None else one.float().contiguous()
            for one in (arguments.D, arguments.gap_dt, arguments.dt_bias)
        )
        dt, weight, rank = arguments.dt, none, 0
        if arguments.dt_weight is not None:
            weight = arguments.dt_weight.float().contiguous()
            rank = weight.shape[1]
            if not 0 < rank <= LARGEST_RANK:
                dt, rank = dt.float() @ weight, 0
        table = table_of(x.device)
        chunk = table.chunk_size(num_states)
        return cls(
            x=map_of(x),
            B=map_of(arguments.B),
            C=map_of(arguments.C),
            dt=map_of(dt),
            steps=Steps(weight, bias, gap_dt),
            paths=Paths(order, gap, pairing.slots, order.stride(0) if order.dim() == 3 else 0),
            sizes=Sizes(num_paths, num_steps, num_channels, length, -(-num_steps // chunk)),
            A_KND=A_KND,
            D=D,
            pairing=pairing,
            table=table,
            num_batch=num_batch,
            rank=rank,
            chunk=chunk,
            softplus=arguments.dt_softplus,
            has_gap=arguments.gap is not None,
            merge=arguments.merge,
        )

    @property
    def num_states(self) -> int:
        """Number of states N."""
        return self.A_KND.shape[1]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        sizes = self.sizes
        return 0 in (self.num_batch, sizes.num_paths, sizes.num_steps, sizes.num_channels)

    @property
    def num_planes(self) -> int:
        """Maps that outputs go to: one a path, or one a pair of paths."""
        return self.sizes.num_paths // self.pairing.sides

    def new_map(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return room for what the kernels write for each pixel, zero if that may not be all."""
        is_written = self.pairing.is_complete and not self.is_empty
        make = self.A_KND.new_empty if is_written else self.A_KND.new_zeros
        return make(*shape, dtype=dtype)

    def new_planes(self) -> Tensor:
        """Return room for the planes (B, planes, L, D) of an output."""
        sizes = self.sizes
        return self.new_map(self.num_batch, self.num_planes, sizes.length, sizes.num_channels)

    def merge_planes(self, planes: Tensor) -> Tensor:
        """Return (B, L, D) if merged, else the planes, which are paths then."""
        if not self.merge:
            return planes
        return planes[:, 0] if self.num_planes == 1 else planes.sum(dim=1)

    def choose_tile(self, tiles: tuple[Tile, ...]) -> Tile:
        """Return what a program holds, of those of the device's table."""
        lanes = self.num_batch * self.num_planes * self.sizes.num_chunks * self.sizes.num_channels
        return choose_tile(
            self.table, tiles, num_states=self.num_states, rank=self.rank, lanes=lanes
        )

    def count_tiles(self, tile: Tile) -> int:
        """Return how many tiles hold all channels."""
        return -(-self.sizes.num_channels // tile.channels)

    def count_groups(self, tile: Tile) -> int:
        """Return how many groups hold all states."""
        return -(-self.num_states // tile.states)

    def count_programs(self, tile: Tile) -> int:
        """Return for how many tiles of all chunks, planes and images there is a program."""
        return self.count_tiles(tile) * self.sizes.num_chunks * self.num_planes * self.num_batch

    def launch(
        self, kernel: Any, num_programs: int, tile: Tile, *values: Any, **constants: Any
    ) -> None:
        """Run a kernel that walks chunks."""
        if self.is_empty:
            return
        kernel[(num_programs,)](
            *values,
            N=self.num_states,
            RANK=self.rank,
            SIDES=self.pairing.sides,
            SOFTPLUS=self.softplus,
            HAS_GAP=self.has_gap,
            BLOCK_D=tile.channels,
            BLOCK_T=self.chunk,
            GROUP=tile.states,
            UNROLL=tile.steps,
            **constants,
            **OPTIONS,
        )

    def new_states(self) -> Tensor:
        """Return room for the states before all chunks, (B, K, chunks, N, D)."""
        sizes = self.sizes
        per_path = sizes.num_chunks * self.num_states * sizes.num_channels
        return self.A_KND.new_empty(self.num_batch * sizes.num_paths * per_path)

    def flow(self, values: Map, weights: Map, states: Tensor, *, is_adjoint: bool) -> None:
        """Write the states before all chunks, or what flows into chunks from behind.

        The adjoint is of dy and C, the other of x and B.
        """
        sizes = self.sizes
        if sizes.num_chunks <= 1 or self.is_empty:
            states.zero_()
            return
        sums = self.A_KND.new_empty(states.numel() // self.num_states)
        tile = self.choose_tile(self.table.forward)
        self.launch(
            scan_local_kernel,
            self.count_programs(tile) * self.pairing.sides * self.count_groups(tile),
            tile,
            *(values, weights, self.dt, self.steps, self.paths, sizes, self.A_KND, states, sums),
            ADJOINT=is_adjoint,
        )
        num_tiles = -(-sizes.num_channels // self.table.narrow)
        scan_pass_kernel[(num_tiles * self.num_states * self.num_batch * sizes.num_paths,)](
            *(sizes, self.A_KND, states, sums, self.num_states),
            ADJOINT=is_adjoint,
            BLOCK_D=self.table.narrow,
            UNROLL=self.table.chunks_at_once,
            **OPTIONS,
        )
