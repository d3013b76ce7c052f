"""The selective scan on a GPU, by triton kernels.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cvmh.ops._torch import scan_torch
from cvmh.ops._triton_backward import scan_bwd_kernel
from cvmh.ops._triton_kernels import scan_fwd_kernel, scan_local_kernel, scan_pass_kernel
from cvmh.ops._triton_plan import Pairing, Table, Tile, choose_tile, pair_paths, table_of
from cvmh.ops._triton_steps import Map, Paths, Sizes, Steps
from cvmh.ops.arguments import ScanArguments

# The differentiable arguments, in the order of their gradients.
FLOATS = ("x", "dt", "A", "B", "C", "D", "gap_dt", "dt_bias", "dt_weight")
FIELDS = (*FLOATS, "order", "gap", "dt_softplus", "merge")
# A program holds its columns of dt_weight in registers; those of a higher rank would not fit.
LARGEST_RANK = 16
# A kernel is one warp a program. More than one stage corrupts recurrent kernels on compute
# capability 10 and 12, and fused multiply-add shall not depend on triton's default.
OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}


def scan_triton(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, differentiable once.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt.
    State, decay and sums are float32. Scans with a float64 input go to the torch backend.

    Returns:
        (B, L, D) if merged, else (B, K, L, D), zero where no path comes by.
    """
    if arguments.accumulator == torch.float64:
        return scan_torch(arguments)
    return _Scan.apply(*(getattr(arguments, name) for name in FIELDS))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        arguments = _arguments(inputs)
        num_values = count_states(arguments) if any(ctx.needs_input_grad) else 0
        states = arguments.x.new_empty(num_values, dtype=torch.float32)
        ctx.save_for_backward(*inputs[: len(FLOATS)], states)
        ctx.rest = inputs[len(FLOATS) :]
        return run_forward(arguments, states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *given, states = ctx.saved_tensors
        results = iter(run_backward(_arguments([*given, *ctx.rest]), states, grad))
        typed = (None if one is None else next(results).to(one.dtype) for one in given)
        return (*typed, *(None for _ in ctx.rest))


def _arguments(values: Sequence[Any]) -> ScanArguments:
    return ScanArguments(**dict(zip(FIELDS, values, strict=True)))


def count_states(arguments: ScanArguments) -> int:
    """Return how many floats the states before all chunks take."""
    num_paths, num_channels, num_states = arguments.A.shape
    chunk = table_of(arguments.x.device).chunk_size(num_states)
    num_steps = arguments.x.shape[1] if arguments.order is None else arguments.order.shape[-1]
    num_chunks = math.ceil(num_steps / chunk)
    return arguments.x.shape[0] * num_paths * num_chunks * num_states * num_channels


def run_forward(arguments: ScanArguments, states: Tensor) -> Tensor:
    """Return y, and write the states before all chunks, unless there is no room for any."""
    with _on_device_of(arguments.x):
        problem = _Problem.of(arguments)
        y = problem.new_planes()
        if states.numel() == 0:
            states = problem.new_states()
        problem.flow(problem.x, problem.B, states, is_adjoint=False)
        tile = problem.choose_tile(problem.table.forward)
        problem.launch(
            *(scan_fwd_kernel, problem.count_programs(tile), tile),
            *(problem.x, problem.B, problem.C, problem.steps, problem.paths, problem.sizes),
            *(problem.A_KND, problem.D, states, y),
        )
        return problem.merge_planes(y)


def run_backward(arguments: ScanArguments, states: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the gradients of the differentiable arguments that were given.

    They are float32, or of the dtype of the argument. The gradient of y may have any strides.
    """
    with _on_device_of(arguments.x):
        results = _propagate(_Problem.of(arguments), arguments, states, grad)
    given = (getattr(arguments, name) is not None for name in FLOATS)
    return [result for result, is_given in zip(results, given, strict=True) if is_given]


def _propagate(
    problem: "_Problem", arguments: ScanArguments, states: Tensor, grad: Tensor
) -> list[Tensor]:
    """Return the gradients of all ``FLOATS``, given that of the output."""
    sizes, num_batch, num_states = problem.sizes, problem.num_batch, problem.num_states
    tile = problem.choose_tile(problem.table.backward)
    num_programs = problem.count_programs(tile)
    num_groups = math.ceil(num_states / tile.states)
    num_tiles = math.ceil(sizes.num_channels / tile.channels)

    dy, adjoints = _map_of(grad), problem.new_states()
    problem.flow(dy, problem.C, adjoints, is_adjoint=True)
    scratch_size = num_programs * (problem.chunk // tile.steps) * tile.states * tile.channels
    grad_x = problem.new_planes()
    by_path = (num_batch, sizes.num_paths, sizes.length)
    is_final = arguments.dt_weight is None and num_groups == 1
    grad_dt = problem.new_map(
        *(*by_path, sizes.num_channels), dtype=arguments.dt.dtype if is_final else torch.float32
    )
    weights = problem.new_map(num_tiles, *by_path, 2 * num_states)
    # By chunk; a program writes all that is in its tile.
    small = grad_x.new_empty(
        *(num_batch * sizes.num_chunks, sizes.num_paths, num_groups),
        *(tile.states + 3, sizes.num_channels),
    )
    problem.launch(
        *(scan_bwd_kernel, num_programs, tile),
        *(problem.x, problem.B, problem.C, dy, problem.steps, problem.paths, sizes),
        *(problem.A_KND, problem.D, states, adjoints, grad_x.new_empty(scratch_size)),
        *(grad_x, grad_dt, weights, small),
    )
    grad_B, grad_C = weights.sum(dim=0).split(num_states, dim=-1)
    of_states, singles = small.sum(dim=0).split([tile.states, 3], dim=2)
    grad_A = of_states.flatten(1, 2)[:, :num_states].transpose(1, 2)
    grad_D, grad_gap_dt, grad_bias = singles.sum(dim=1).unbind(1)
    grad_weight = grad_D
    if arguments.dt_weight is not None:
        low, weight = arguments.dt.float(), arguments.dt_weight.float()
        grad_weight = (low.transpose(2, 3) @ grad_dt).sum(dim=0)
        grad_dt = grad_dt @ weight.transpose(1, 2)
    parts = (grad_A, grad_B, grad_C, grad_D, grad_gap_dt, grad_bias)
    return [grad_x.sum(dim=1), grad_dt, *(part.contiguous() for part in parts), grad_weight]


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A scan as the kernels read it.

    Attributes:
        A_KND: A for powers of two, (K, N, D).
        D: Zeros where none was given, like the small tensors of ``steps``.
        rank: Columns of the map of ``steps`` that a weight expands, or 0.
        chunk: Steps of a chunk.
    """

    x: Map
    B: Map
    C: Map
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
    def of(cls, arguments: ScanArguments) -> "_Problem":
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
        if rank > LARGEST_RANK or (arguments.dt_weight is not None and rank == 0):
            dt, rank = dt.float() @ weight, 0
        table = table_of(x.device)
        chunk = table.chunk_size(num_states)
        return cls(
            x=_map_of(x),
            B=_map_of(arguments.B),
            C=_map_of(arguments.C),
            steps=Steps(_map_of(dt), weight, bias, gap_dt),
            paths=Paths(order, gap, pairing.slots, order.stride(0) if order.dim() == 3 else 0),
            sizes=Sizes(num_paths, num_steps, num_channels, length, math.ceil(num_steps / chunk)),
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
        return choose_tile(self.table, tiles, num_states=self.num_states, lanes=lanes)

    def count_programs(self, tile: Tile) -> int:
        """Return for how many tiles of all chunks, planes and images there is a program."""
        num_tiles = math.ceil(self.sizes.num_channels / tile.channels)
        return num_tiles * self.sizes.num_chunks * self.num_planes * self.num_batch

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
        num_groups = math.ceil(self.num_states / tile.states)
        self.launch(
            scan_local_kernel,
            self.count_programs(tile) * self.pairing.sides * num_groups,
            tile,
            *(values, weights, self.steps, self.paths, sizes, self.A_KND, states, sums),
            ADJOINT=is_adjoint,
        )
        num_tiles = math.ceil(sizes.num_channels / self.table.narrow)
        scan_pass_kernel[(num_tiles * self.num_states * self.num_batch * sizes.num_paths,)](
            *(sizes, self.A_KND, states, sums),
            N=self.num_states,
            ADJOINT=is_adjoint,
            BLOCK_D=self.table.narrow,
            UNROLL=self.table.chunks_at_once,
            **OPTIONS,
        )


def _map_of(tensor: Tensor) -> Map:
    """Describe a tensor (B, L, ...) that all paths share, or (B, K, L, ...)."""
    image, *path, pixel, last = tensor.stride()
    return Map(tensor, image, path[0] if path else 0, pixel, last)


@contextmanager
def _on_device_of(tensor: Tensor) -> Iterator[None]:
    """Launch where a tensor lives, and keep autocast out."""
    device = torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
    with device, torch.autocast(tensor.device.type, enabled=False):
        yield
