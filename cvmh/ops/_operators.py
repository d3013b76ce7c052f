"""Scans as operators of torch, so that torch.compile and torch.export take one as a single node.

Legend: B batch, L pixels, D channels, K paths.

A backend of compiled kernels is a module ``cvmh.ops._NAME`` with ``run_forward`` and
``run_backward``, and becomes two operators, ``cvmh::selective_scan_NAME_fwd`` and ``_bwd``. They
are defined without importing it: a program that was exported with a scan finds its operators as
soon as ``cvmh.ops`` is imported, and numba or triton is imported when the first scan runs. Each
backend has its own pair, rather than one pair with a kernel for each device, because the states
that the forward keeps for the backward are laid out as the backend likes, and two backends may run
on the same device.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from cvmh.errors import KernelError
from cvmh.ops._torch import scan_torch
from cvmh.ops.arguments import ScanArguments

# The differentiable arguments come first, in the order of their gradients.
FLOATS = ("x", "dt", "A", "B", "C", "D", "gap_dt", "decay_dt", "dt_bias", "dt_weight")
FIELDS = (*FLOATS, "order", "gap", "dt_softplus", "merge")
NUM_TENSORS = len(FLOATS) + 2
INPUTS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? gap_dt, "
    "Tensor? decay_dt, Tensor? dt_bias, Tensor? dt_weight, Tensor? order, Tensor? gap, "
    "bool dt_softplus, bool merge"
)
CountStates = Callable[[ScanArguments], int]


def define_scan(
    name: str,
    count_states: CountStates,
    *,
    devices: str | tuple[str, ...],
    without: tuple[str, ...] = (),
) -> Callable[[ScanArguments], Tensor]:
    """Define the operators of a backend and return the scan that calls them.

    The scan takes checked arguments and is differentiable once. State, decay and sums are float32;
    scans with a float64 input go to the torch backend.

    The backend's ``run_forward`` takes arguments and room for the states, of no values where none
    are wanted, and returns y in float32, contiguous. ``run_backward`` takes arguments, the states,
    and the gradient of y, with any strides, and returns gradients by name, of all ``FLOATS`` that
    were given at least.

    Args:
        name: Of the backend.
        count_states: Gives how many floats of states the forward keeps.
        devices: Types of the devices that the backend runs on.
        without: Arguments that the backend does not know; scans with them go to the torch backend.
    """

    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        *values, keep_states = inputs
        arguments = _arguments(values)
        states = _new_states(count_states, arguments, keep_states)
        return import_module(f"cvmh.ops._{name}").run_forward(arguments, states), states

    def backward(grad: Tensor, states: Tensor, *inputs: Any) -> list[Tensor]:
        run_backward = import_module(f"cvmh.ops._{name}").run_backward
        results = run_backward(_arguments(inputs), states, grad)
        given = zip(FLOATS, inputs, strict=False)
        return [_own(results[name].to(value.dtype)) for name, value in given if value is not None]

    qualified = f"selective_scan_{name}"
    forward_name, backward_name = f"cvmh::{qualified}_fwd", f"cvmh::{qualified}_bwd"
    # Not by torch.library.custom_op, which loads torch's compiler at the first call: 1.5 s, 150 MB.
    for operator, schema, kernel in (
        (forward_name, f"({INPUTS}, bool keep_states) -> (Tensor, Tensor)", forward),
        (backward_name, f"(Tensor grad, Tensor states, {INPUTS}) -> Tensor[]", backward),
    ):
        torch.library.define(operator, schema)
        torch.library.impl(operator, devices, kernel)
    scan = getattr(torch.ops.cvmh, f"{qualified}_fwd").default
    propagate = getattr(torch.ops.cvmh, f"{qualified}_bwd").default

    def forward_fake(*inputs: Any) -> tuple[Tensor, Tensor]:
        *values, keep_states = inputs
        arguments = _arguments(values)
        return _new_output(arguments), _new_states(count_states, arguments, keep_states)

    def differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        *tensors, states = ctx.saved_tensors
        results = iter(propagate(grad, states, *tensors, *ctx.flags))
        gradients = (None if one is None else next(results) for one in tensors[: len(FLOATS)])
        return (*gradients, None, None, None, None, None)

    def differentiate_again(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise KernelError(
            f"backend '{name}' gives no gradients of gradients; take backend 'reference'"
        )

    torch.library.register_fake(forward_name, forward_fake)
    torch.library.register_fake(backward_name, _backward_fake)
    torch.library.register_autograd(forward_name, differentiate, setup_context=_save)
    torch.library.register_autograd(backward_name, differentiate_again)

    def run(arguments: ScanArguments) -> Tensor:
        is_foreign = any(name in arguments.tensors for name in without)
        if is_foreign or arguments.accumulator == torch.float64:
            return scan_torch(arguments)
        values = [getattr(arguments, field) for field in FIELDS]
        keep_states = torch.is_grad_enabled() and any(
            value is not None and value.requires_grad for value in values[: len(FLOATS)]
        )
        y: Tensor = scan(*values, keep_states)[0]
        return y

    return run


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the backward needs of the inputs and the output of a forward operator."""
    states = output[1]
    ctx.save_for_backward(*inputs[:NUM_TENSORS], states)
    ctx.flags = inputs[NUM_TENSORS:-1]
    ctx.mark_non_differentiable(states)
    # Or a gradient of the states would be made, of zeros.
    ctx.set_materialize_grads(False)


def _arguments(values: Any) -> ScanArguments:
    return ScanArguments(**dict(zip(FIELDS, values, strict=True)))


def _new_output(arguments: ScanArguments) -> Tensor:
    """Return room for y, (B, L, D) or unmerged (B, K, L, D)."""
    num_batch, length, num_channels = arguments.x.shape
    paths = () if arguments.merge else (arguments.A.shape[0],)
    shape = (num_batch, *paths, length, num_channels)
    return arguments.x.new_empty(shape, dtype=arguments.accumulator)


def _own(result: Tensor) -> Tensor:
    """Return a gradient contiguous, and in memory that is its alone."""
    # Of an empty part nobody can tell.
    is_part = result.untyped_storage().nbytes() > result.nbytes or result.numel() == 0
    if is_part or not result.is_contiguous():
        return result.clone(memory_format=torch.contiguous_format)
    return result


def _new_states(count_states: CountStates, arguments: ScanArguments, keep_states: bool) -> Tensor:
    num_values = count_states(arguments) if keep_states else 0
    return arguments.x.new_empty(num_values, dtype=arguments.accumulator)


def _backward_fake(grad: Tensor, states: Tensor, *inputs: Any) -> list[Tensor]:
    given = [value for value in inputs[: len(FLOATS)] if value is not None]
    return [torch.empty_like(value, memory_format=torch.contiguous_format) for value in given]
