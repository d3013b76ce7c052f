"""The selective scan as a plain loop: the definition that every fast backend is held to.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cvmh.ops.arguments import ScanArguments


def scan_reference(arguments: ScanArguments) -> Tensor:
    """Return the scan of checked arguments, step by step, differentiable by autograd.

    Recurrence: h = exp(A G) h + dt B x, y = sum over N of C h + D x, with G = dt + gap gap_dt, or
    decay_dt.
    State, decay and sums are float32, or float64 if any input is.

    Returns:
        (B, L, D) if merged, else (B, K, L, D), zero where no path comes by.
    """
    x, dt, A, B, C, D, gap_dt, given_decay_dt, dt_bias, dt_weight = (
        None if value is None else value.to(arguments.accumulator)
        for value in (
            *(arguments.x, arguments.dt, arguments.A, arguments.B, arguments.C, arguments.D),
            *(arguments.gap_dt, arguments.decay_dt, arguments.dt_bias, arguments.dt_weight),
        )
    )
    assert x is not None and dt is not None
    assert A is not None and B is not None and C is not None
    if dt_weight is not None:
        dt = torch.einsum("bklr,krd->bkld", dt, dt_weight)
    if dt_bias is not None:
        dt = dt + dt_bias[:, None]
    if arguments.dt_softplus:
        dt = functional.softplus(dt)

    paths = arguments.paths
    (num_batch, length, num_channels), num_paths = x.shape, A.shape[0]
    batch = torch.arange(num_batch, device=x.device)[:, None]
    path = torch.arange(num_paths, device=x.device)[None, :]
    state = x.new_zeros(num_batch, num_paths, num_channels, A.shape[2])
    outputs = []
    for step in range(paths.shape[2]):
        is_pixel = (paths[:, :, step] >= 0)[:, :, None]
        pixel = paths[:, :, step].clamp(min=0)
        x_BKD, dt_BKD = x[batch, pixel], dt[batch, path, pixel]
        decay_dt = dt_BKD
        if arguments.gap is not None and gap_dt is not None:
            decay_dt = dt_BKD + arguments.gap[..., step, None] * gap_dt
        if given_decay_dt is not None:
            decay_dt = given_decay_dt[batch, path, pixel]
        decay = torch.exp(decay_dt[..., None] * A)
        new = decay * state + (dt_BKD * x_BKD)[..., None] * B[batch, path, pixel, None, :]
        state = torch.where(is_pixel[..., None], new, state)
        output = (state * C[batch, path, pixel, None, :]).sum(dim=-1)
        outputs.append(output if D is None else output + D * x_BKD)

    y = x.new_zeros(num_batch, num_paths, length + 1, num_channels)
    if outputs:
        # Padding writes into a spare last row.
        target = torch.where(paths < 0, length, paths)[..., None].expand(-1, -1, -1, num_channels)
        y = y.scatter(2, target, torch.stack(outputs, dim=2))
    y = y[:, :, :length]
    return y.sum(dim=1) if arguments.merge else y
