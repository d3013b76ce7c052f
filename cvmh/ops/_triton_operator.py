"""The triton backend as operators of torch, defined without importing triton."""

import torch
from torch import Tensor

from cvmh.ops._operators import Kernels, define_scan
from cvmh.ops._torch import scan_torch
from cvmh.ops._triton_plan import count_states
from cvmh.ops.arguments import ScanArguments


def scan_triton(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, differentiable once.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt.
    State, decay and sums are float32. Scans with a float64 input go to the torch backend.

    Returns:
        (B, L, D) if merged, else (B, K, L, D), zero where no path comes by.
    """
    is_double = arguments.accumulator == torch.float64
    return scan_torch(arguments) if is_double else _scan(arguments)


def _forward(arguments: ScanArguments, states: Tensor) -> Tensor:
    from cvmh.ops._triton import run_forward

    return run_forward(arguments, states)


def _backward(arguments: ScanArguments, states: Tensor, grad: Tensor) -> list[Tensor]:
    from cvmh.ops._triton import run_backward

    return run_backward(arguments, states, grad)


# The CPU is for triton's interpreter.
_scan = define_scan(
    "triton",
    Kernels(count_states=count_states, forward=_forward, backward=_backward),
    devices=("cuda", "cpu"),
)
