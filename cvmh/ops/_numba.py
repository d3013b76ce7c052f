"""The selective scan on the CPU, by kernels that numba compiles.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cvmh.ops._numba_backward import count_backward_scratch, make_backward
from cvmh.ops._numba_forward import count_forward_scratch, make_forward
from cvmh.ops._numba_kernels import PLAN, compile_kernel
from cvmh.ops._numba_sizes import LANES, chunk_size
from cvmh.ops._numba_threads import FUNCTION, Function, count_threads, run_on_threads
from cvmh.ops.arguments import ScanArguments

# Widest tile of channels. A few images are cut into more tiles, for the sake of threads, of about
# half of it at least.
TILE = 96
# Jobs that a backward pass is cut into where the channels allow. Not by the number of threads:
# gradients of B and C are sums over tiles, and shall not depend on it. Forwards nothing does.
ENOUGH_JOBS = 4
# Nanoseconds for one channel of one step, without states and for each state, and of a long pass.
FIXED_COST, STATE_COST, LONG = 0.7, 0.12, 1e6
# A compilation that takes longer than this is worth a line to the user.
NOTICED_SECONDS = 1.0


class Pass(NamedTuple):
    """What makes a kernel, and how many floats of scratch memory a thread needs for it."""

    make: Callable[[int], Any]
    count_scratch: Callable[[int, int, int, int], int]


FORWARD = Pass(make_forward, count_forward_scratch)
BACKWARD = Pass(make_backward, count_backward_scratch)


def run_forward(arguments: ScanArguments, states: Tensor) -> Tensor:
    """Return y, and write the states before all chunks, unless there is no room for any."""
    problem = _Problem.of(arguments)
    y = problem.new_output()
    tile = problem.choose_tile(problem.num_threads)
    problem.run(FORWARD, tile, y=y, states=states if states.numel() > 0 else None)
    return y


def run_backward(arguments: ScanArguments, states: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Return the float32 gradients of all differentiable arguments that were given, by name."""
    problem = _Problem.of(arguments)
    num_batch, length, num_channels = problem.x.shape
    num_paths, num_states, _ = problem.A_KND.shape
    rank, new_zeros = problem.rank, problem.x.new_zeros
    narrow_size, num_small = rank + 2 * num_states, num_states + 3 + rank
    grad_x = torch.zeros_like(problem.x)
    grad_dt = None if rank else torch.zeros_like(problem.dt)
    grad_decay_dt = None if problem.decay_dt is None else torch.zeros_like(problem.decay_dt)
    tile = problem.choose_tile(ENOUGH_JOBS)
    narrow = new_zeros(problem.count_tiles(tile), num_batch, num_paths, length, narrow_size)
    small = new_zeros(num_batch, num_paths, num_small, num_channels)
    problem.run(
        BACKWARD,
        tile,
        y=grad.float().contiguous(),
        states=states,
        grad_x=grad_x,
        grad_dt=grad_dt,
        grad_decay_dt=grad_decay_dt,
        grad_narrow=narrow,
        grad_small=small,
    )
    grad_low, grad_B, grad_C = narrow.sum(dim=0).split([rank, num_states, num_states], dim=-1)
    sizes = [num_states, 1, 1, 1, rank]
    grad_A, *singles, grad_weight = small.sum(dim=0).split(sizes, dim=1)
    grad_D, grad_gap_dt, grad_bias = (single[:, 0] for single in singles)
    results = {"x": grad_x, "dt": grad_low if rank else grad_dt, "B": grad_B, "C": grad_C}
    results |= {"A": grad_A.transpose(1, 2), "D": grad_D, "gap_dt": grad_gap_dt}
    results |= {"decay_dt": grad_decay_dt, "dt_bias": grad_bias, "dt_weight": grad_weight}
    return {name: value for name, value in results.items() if value is not None}


def warm_up() -> None:
    """Compile both kernels, or read them from numba's cache, so that no scan has to."""
    _entry(FORWARD.make)
    _entry(BACKWARD.make)


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A scan whose tensors are as the kernels read them: float32, and packed where they ask."""

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
    order: Tensor
    gap: Tensor | None
    softplus: bool
    merge: bool

    @classmethod
    def of(cls, arguments: ScanArguments) -> "_Problem":
        """Convert the arguments of a scan."""
        order, dt = arguments.order, arguments.dt.float()
        if order is None:
            order = torch.arange(arguments.x.shape[1], device=arguments.x.device)[None]
        return cls(
            x=arguments.x.float().contiguous(),
            dt=dt.contiguous() if arguments.dt_weight is None else dt,
            A_KND=arguments.A.float().transpose(1, 2).contiguous(),
            B=arguments.B.float(),
            C=arguments.C.float(),
            D=_packed(arguments.D),
            gap_dt=_packed(arguments.gap_dt),
            decay_dt=_packed(arguments.decay_dt),
            dt_bias=_packed(arguments.dt_bias),
            dt_weight=_packed(arguments.dt_weight),
            order=order.to(torch.int32).contiguous(),
            gap=None if arguments.gap is None else arguments.gap.to(torch.int32).contiguous(),
            softplus=arguments.dt_softplus,
            merge=arguments.merge,
        )

    @property
    def rank(self) -> int:
        """R, or 0 where dt is given for each channel."""
        return 0 if self.dt_weight is None else self.dt_weight.shape[1]

    @property
    def chunk(self) -> int:
        """Steps of a chunk."""
        return chunk_size(self.A_KND.shape[1])

    def choose_tile(self, num_jobs: int) -> int:
        """Return how many channels, a multiple of LANES, a tile has for that many jobs or so.

        Tiles are as wide as they may be: each reads B and C again, and each row of a map apart.
        """
        num_batch, _, num_channels = self.x.shape
        wanted = min(-(-num_jobs // max(num_batch, 1)), num_channels // (TILE // 2))
        num_tiles = max(-(-num_channels // TILE), wanted, 1)
        return -(-num_channels // (num_tiles * LANES)) * LANES

    def count_tiles(self, tile: int) -> int:
        """Return how many tiles of that many channels there are; the last may be narrower."""
        return -(-self.x.shape[2] // tile)

    @property
    def num_threads(self) -> int:
        """Threads worth waking: one, unless a forward pass takes about a millisecond."""
        lanes = self.x.shape[0] * self.A_KND.shape[0] * self.order.shape[-1] * self.x.shape[2]
        is_long = lanes * (FIXED_COST + self.A_KND.shape[1] * STATE_COST) > LONG
        return count_threads() if is_long else 1

    def new_output(self) -> Tensor:
        """Return room for y, (B, L, D) or unmerged (B, K, L, D)."""
        num_batch, length, num_channels = self.x.shape
        paths = () if self.merge else (self.A_KND.shape[0],)
        return self.x.new_empty(num_batch, *paths, length, num_channels)

    def run(self, kernel: Pass, tile: int, *, y: Tensor, **others: Tensor | None) -> None:
        """Run a kernel; ``others`` are what it reads or writes besides the inputs and ``y``."""
        num_batch, length, num_channels = self.x.shape
        num_paths, num_states, _ = self.A_KND.shape
        num_tiles = self.count_tiles(tile)
        num_jobs = num_batch * num_tiles
        if num_jobs == 0 or length == 0:
            return
        num_threads = min(num_jobs, self.num_threads)
        size = kernel.count_scratch(self.chunk, tile, num_states, self.rank)
        scratch = self.x.new_empty(num_threads * size)
        counters = self.x.new_zeros(2, dtype=torch.int64)
        names = ("x", "A_KND", "D", "gap_dt", "decay_dt", "dt_bias", "dt_weight", "order", "gap")
        tensors = {name: getattr(self, name) for name in names} | others
        tensors |= {"dt": self.dt, "B": self.B, "C": self.C, "y": y}
        values = {name: _address(value) for name, value in tensors.items()}
        values |= {
            "counters": _address(counters),
            "num_jobs": num_jobs,
            "scratch": _address(scratch),
            "scratch_size": size,
            "chunk": self.chunk,
            "tile": tile,
            "num_tiles": num_tiles,
            "num_channels": num_channels,
            "num_paths": num_paths,
            "num_states": num_states,
            "num_steps": self.order.shape[-1],
            "length": length,
            "rank": self.rank,
            "softplus": self.softplus,
            "order_image": self.order.stride(0) if self.order.dim() == 3 else 0,
            "y_image": y.stride(0),
            "y_path": 0 if self.merge else y.stride(1),
        }
        for name, last in (("dt", "rank"), ("B", "state"), ("C", "state")):
            strides = getattr(self, name).stride()
            for axis, stride in zip(("image", "path", "pixel", last), strides, strict=True):
                values[f"{name}_{axis}"] = stride
        assert values.keys() <= set(PLAN.names or ()), "a name that no kernel knows"
        plan = np.array([values.get(name, 0) for name in PLAN.names or ()], dtype=np.int64)
        run_on_threads(_entry(kernel.make), plan.ctypes.data, num_threads)


def _packed(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@cache
def _entry(make: Callable[[int], Any]) -> Function:
    """Return a kernel compiled for this machine, to be called with the address of a plan."""
    # Told while it lasts: afterwards nobody wonders any more what takes so long.
    notice = threading.Timer(NOTICED_SECONDS, _tell_of_compilation)
    notice.daemon = True
    notice.start()
    try:
        machine_code = compile_kernel(make)
    finally:
        notice.cancel()
    function = FUNCTION(machine_code.address)
    # A ctypes function does not keep its code alive.
    function.machine_code = machine_code  # type: ignore[attr-defined]
    return function


@cache
def _tell_of_compilation() -> None:
    """Log one line, the first time only."""
    logging.getLogger("cvmh").info(
        "compiling the scan for this machine, which takes some seconds; "
        "later runs find it in a cache"
    )
