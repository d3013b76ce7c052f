"""The selective scan in the form that ONNX has loops for: few nodes, any number of pixels.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt; S steps
of Q chunks make a path.

A loop over all steps would be slow in ONNX, where each turn costs some calls however little it
computes. So a path is cut into chunks and one turn does the same step of all chunks: a first loop
over S finds where each chunk would end from zero, a loop over Q hands the ends on, and a second
loop over S runs each chunk from its true start. Nothing is written in place, and all sizes may be
symbols. Batches are expanded rather than broadcast: given one image as an example, the exporter
takes a broadcast batch to have one image always.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from cvmh.errors import KernelError
from cvmh.ops._tracing import is_tracing
from cvmh.ops.arguments import ScanArguments, expand_steps
from cvmh.ops.traversal import inverse_table

CHUNK = 64


def scan_export(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, for ``torch.onnx.export``: without gradients, and slow.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt.
    State, decay and sums are float32, or float64 if any input is.

    Returns:
        (B, L, D) if merged, else (B, K, L, D), zero where no path comes by.

    Raises:
        KernelError: If a gradient is wanted, unless a graph is traced.
    """
    wants_gradient = any(value.requires_grad for value in arguments.tensors.values())
    if wants_gradient and torch.is_grad_enabled() and not is_tracing():
        raise KernelError("backend 'export' gives no gradients; take another, or torch.no_grad()")
    if arguments.num_steps == 0:
        return _empty_output(arguments)
    if torch.is_autocast_enabled(arguments.x.device.type):
        with torch.autocast(arguments.x.device.type, enabled=False):
            return _scan(arguments)
    return _scan(arguments)


def _scan(arguments: ScanArguments) -> Tensor:
    detached = {name: value.detach() for name, value in arguments.tensors.items()}
    arguments = replace(arguments, **detached)  # type: ignore[arg-type]
    dtype = arguments.accumulator
    x, dt, B, C = (_in_path_order(arguments, name) for name in ("x", "dt", "B", "C"))
    dt = expand_steps(arguments, dt)
    decay_dt = dt
    if arguments.gap is not None and arguments.gap_dt is not None:
        gap = arguments.gap.to(dtype)[..., None]
        decay_dt = dt + gap * arguments.gap_dt.to(dtype)[:, None]
    if arguments.decay_dt is not None:
        decay_dt = _in_path_order(arguments, "decay_dt")
    inputs = dt * x
    if arguments.order is not None:
        # Padding neither decays nor adds, whatever the pixel holds that stands in for one.
        is_padding = (arguments.order < 0).expand(x.shape[0], -1, -1)[..., None]
        decay_dt, inputs, B = (value.masked_fill(is_padding, 0) for value in (decay_dt, inputs, B))

    y = _recur(arguments.A.to(dtype), decay_dt, inputs, B, C)
    if arguments.D is not None:
        y = y + arguments.D.to(dtype)[:, None] * x
    if arguments.order is not None:
        y = _in_pixel_order(y, arguments)
    return y.sum(dim=1) if arguments.merge else y


def _empty_output(arguments: ScanArguments) -> Tensor:
    num_batch, length, num_channels = arguments.x.shape
    paths = () if arguments.merge else (arguments.A.shape[0],)
    shape = (num_batch, *paths, length, num_channels)
    return arguments.x.new_zeros(shape, dtype=arguments.accumulator)


def _in_path_order(arguments: ScanArguments, name: str) -> Tensor:
    """Return one of the maps as (B, K, T, ...); padding reads the first pixel."""
    values: Tensor = getattr(arguments, name).to(arguments.accumulator)
    if name == "x":
        values = values[:, None]
    if arguments.order is None:
        return values
    num_batch, num_maps, length, _ = values.shape
    first = torch.arange(num_batch * num_maps, device=values.device).view(num_batch, num_maps, 1)
    rows = arguments.order.long().clamp(min=0) + first * length
    return _read(values, rows)


def _in_pixel_order(y: Tensor, arguments: ScanArguments) -> Tensor:
    """Return (B, K, T, D) as maps (B, K, L, D), zero at pixels that are not visited."""
    assert arguments.order is not None
    num_batch, num_paths, num_steps, num_channels = y.shape
    inverse = inverse_table(arguments.order, arguments.x.shape[1]).long()
    inverse = inverse.expand(num_batch, -1, -1)
    first = torch.arange(num_batch * num_paths, device=y.device).view(num_batch, num_paths, 1)
    # A row of zeros after all others stands for what is not visited.
    nowhere = num_batch * num_paths * num_steps
    rows = torch.where(inverse < 0, nowhere, inverse + first * num_steps)
    return _read(torch.cat([y.flatten(0, 2), y.new_zeros(1, num_channels)]), rows)


def _read(values: Tensor, rows: Tensor) -> Tensor:
    """Return rows (B, K, ...) of values (..., D)."""
    # Indexing by brackets would be GatherND, which is slower than Gather.
    picked = values.flatten(0, -2).index_select(0, rows.flatten())
    return picked.view(*rows.shape, values.shape[-1])


def _recur(A_KDN: Tensor, decay_dt: Tensor, inputs: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return the sum over N of C h, (B, K, T, D); the other arguments are in path order."""
    num_steps = inputs.shape[2]
    steps = tuple(map(_by_step, (decay_dt, inputs, B, C)))
    # Of the shape of the states: the exporter takes sizes of 1 for unknown ones, and would not see
    # that a loop may stretch them.
    A = A_KDN[:, None].expand(*steps[0].shape[1:], A_KDN.shape[-1])

    # The bodies of the loops take what is carried and what a turn reads, and return what is
    # carried on and what the turn puts out: nothing that they were given.
    def advance(state: Tensor, step: tuple[Tensor, ...]) -> Tensor:
        decay_step, input_step, B_step = step
        decay = torch.exp(decay_step[..., None] * A)
        return decay * state + input_step[..., None] * B_step[..., None, :]

    def end(state: Tensor, step: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        # A turn has to put out something.
        return advance(state, step), step[0].new_zeros(1)

    def hand_on(state: Tensor, chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        decay, own_end = chunk
        return decay * state + own_end, state.clone()

    def put_out(state: Tensor, step: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        state = advance(state, step[:-1])
        return state, (state * step[-1][..., None, :]).sum(dim=-1)

    ends, _ = scan(end, _packed(torch.zeros_like(A)), steps[:-1])
    whole = torch.exp(steps[0].sum(dim=0)[..., None] * A)
    by_chunk = tuple(_packed(value.movedim(2, 0)) for value in (whole, ends))
    _, starts = scan(hand_on, _packed(torch.zeros_like(A[:, :, 0])), by_chunk)
    _, y = scan(put_out, _packed(starts.movedim(0, 2)), steps)
    return y.permute(1, 2, 3, 0, 4).flatten(2, 3)[:, :, :num_steps]


def _packed(values: Tensor) -> Tensor:
    """Return a copy with strides as what a loop carries on will have, for sizes of 1 as well."""
    return values.clone(memory_format=torch.contiguous_format)


def _by_step(values: Tensor) -> Tensor:
    """Cut (B, K, T, ...) into chunks, the last one filled with zeros: (S, B, K, Q, ...)."""
    num_batch, num_paths, num_steps, width = values.shape
    # In this form the exporter sees that the chunks have the size that was asked for.
    num_chunks = (num_steps + CHUNK - 1) // CHUNK
    filled = functional.pad(values, (0, 0, 0, num_chunks * CHUNK - num_steps))
    chunks = filled.view(num_batch, num_paths, num_chunks, CHUNK, width)
    return _packed(chunks.permute(3, 0, 1, 2, 4))
