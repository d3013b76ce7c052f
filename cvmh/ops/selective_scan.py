"""The selective scan over the pixels of a map: one function, several backends.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module

from torch import Tensor

from cvmh.errors import KernelError
from cvmh.ops import _numba_sizes, _triton_plan
from cvmh.ops._export import scan_export
from cvmh.ops._operators import define_scan
from cvmh.ops._torch import scan_torch
from cvmh.ops._tracing import constant_in_graphs, is_exporting_to_onnx
from cvmh.ops.arguments import ScanArguments, check_arguments
from cvmh.ops.reference import scan_reference

BACKENDS: dict[str, Callable[[ScanArguments], Tensor]] = {
    "triton": define_scan(
        "triton",
        _triton_plan.count_states,
        # The CPU is for triton's interpreter.
        devices=("cuda", "cpu"),
        without=("decay_dt",),
    ),
    "numba": define_scan("numba", _numba_sizes.count_states, devices="cpu"),
    "torch": scan_torch,
    "reference": scan_reference,
    "export": scan_export,
}
# What auto runs by the type of the device, and what is said where it is missing.
FASTEST = {
    "cpu": ("numba", "scans on the CPU run about ten times slower"),
    "cuda": ("triton", "scans on a GPU run in plain torch, much slower"),
}
BACKEND_VARIABLE = "CVMH_SCAN_BACKEND"


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    order: Tensor | None = None,
    gap: Tensor | None = None,
    gap_dt: Tensor | None = None,
    decay_dt: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_weight: Tensor | None = None,
    merge: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Return a selective scan along K paths over a map, summed where the paths meet.

    Along each path, for each channel, from h = 0:
    h = exp(A (dt + gap gap_dt)) h + dt B x, y = sum over N of C h + D x.

    Everything but ``order`` and ``gap`` is in pixel order and may have any floating dtype. State,
    decay and sums are float32 (float64 if any input is), and so is the result: 16-bit inputs
    give a float32 output. Differentiable in every floating argument.

    Args:
        x: Input (B, L, D).
        dt: Step sizes (B, K, L, D), or (B, K, L, R) if ``dt_weight`` is given.
        A: Decay rates (K, D, N), negative.
        B: Input weights (B, K, L, N); any strides.
        C: Output weights (B, K, L, N); any strides.
        D: Weights (K, D) of the input in the output.
        order: Pixel visited at each step, integers (K, T) or (B, K, T), each pixel at most once a
            path; -1 is padding, a step that changes nothing. None is one path in pixel order.
        gap: Pixels leapt over before each step, integers of the shape of ``order``.
        gap_dt: Step size (K, D) of a leapt pixel, after any softplus.
        decay_dt: What the state decays by instead of dt + gap gap_dt, (B, K, L, D), in place of
            ``gap`` and ``gap_dt``; on CUDA it takes the torch backend.
        dt_bias: Added to dt, (K, D).
        dt_softplus: Whether dt passes a softplus, after weight and bias.
        dt_weight: Weights (K, R, D) that expand a low-rank dt.
        merge: Whether to sum over the paths.
        backend: ``triton`` (CUDA tensors only), ``numba`` (CPU tensors only), ``torch``,
            ``reference``, or ``auto``: what the environment variable CVMH_SCAN_BACKEND names, else
            ``triton`` on CUDA and ``numba`` on the CPU, where they can be imported, else
            ``torch``. ``export`` is what torch.onnx.export can translate, without gradients;
            ``auto`` always takes it there, and nowhere else.

    Returns:
        (B, L, D) if merged, else (B, K, L, D); zero where no path comes by.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit together. B, L and T may be 0.
        KernelError: If the backend is unknown, missing or not for this device, A is not negative,
            or an order has a pixel twice or out of range (values are checked on the CPU only).
    """
    arguments = ScanArguments(
        x=x,
        dt=dt,
        A=A,
        B=B,
        C=C,
        D=D,
        order=order,
        gap=gap,
        gap_dt=gap_dt,
        decay_dt=decay_dt,
        dt_bias=dt_bias,
        dt_softplus=dt_softplus,
        dt_weight=dt_weight,
        merge=merge,
    )
    check_arguments(arguments)
    return BACKENDS[choose_backend(backend, device=x.device.type)](arguments)


# The names of backends do not change while a graph is traced.
@constant_in_graphs
def choose_backend(backend: str = "auto", *, device: str = "cpu") -> str:
    """Return the name of the backend that ``selective_scan`` would run.

    Args:
        backend: As of ``selective_scan``.
        device: Type of the device that the tensors are on.

    Raises:
        KernelError: If it is unknown, not part of this build, cannot be imported, or is not for
            this device.
    """
    source = "backend"
    if backend == "auto" and is_exporting_to_onnx():
        return "export"
    if backend == "auto" and device == "meta":
        # Tensors have no values there, and this one's operator knows shapes without its kernels.
        return "numba"
    if backend == "auto" and os.environ.get(BACKEND_VARIABLE):
        backend, source = os.environ[BACKEND_VARIABLE], BACKEND_VARIABLE
    if backend == "auto" and device in FASTEST:
        fastest, otherwise = FASTEST[device]
        return fastest if _warn_if_missing(fastest, otherwise) is None else "torch"
    if backend == "auto":
        return "torch"
    available = ", ".join(BACKENDS)
    if backend not in BACKENDS:
        raise KernelError(f"{source} must be auto or one of {available}, got {backend!r}")
    if backend in ("numba", "triton"):
        reason = _why_missing(backend)
        if reason is not None:
            raise KernelError(f"{source} {backend!r} cannot be imported: {reason}")
    if backend == "numba" and device != "cpu":
        raise KernelError(f"{source} 'numba' needs tensors on the CPU, got {device}")
    if backend == "triton" and device != "cuda":
        if not import_module("cvmh.ops._triton").is_interpreted():
            raise KernelError(f"{source} 'triton' needs tensors on a CUDA device, got {device}")
    return backend


def warm_up(backend: str = "auto") -> None:
    """Compile the kernels that scans on the CPU use, so that no later scan waits for it.

    The first time on a machine this takes some seconds, then a fraction of one: numba keeps
    machine code in a cache. Backends that compile nothing return at once.

    Args:
        backend: As of ``selective_scan``.

    Raises:
        KernelError: As of ``choose_backend``.
    """
    if choose_backend(backend) == "numba":
        import_module("cvmh.ops._numba").warm_up()


@cache
def _why_missing(backend: str) -> str | None:
    """Return why the kernels of a backend cannot be imported, if so."""
    try:
        import_module(f"cvmh.ops._{backend}")
    except ImportError as error:
        return str(error)
    return None


@cache
def _warn_if_missing(backend: str, what: str) -> str | None:
    reason = _why_missing(backend)
    if reason is not None:
        warnings.warn(f"{what}, for want of {backend}: {reason}", stacklevel=4)
    return reason
