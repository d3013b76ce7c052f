"""Which tensors kernels may run on that torch knows nothing of: no operators, without gradients."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cvmh.ops._tracing import is_tracing
from cvmh.ops.selective_scan import choose_backend


def suits_numba(*tensors: Tensor | None) -> bool:
    """Return whether such kernels of numba can, and may, run on those tensors that are given.

    They must have values, in float32 on the CPU, and nobody may want to see what is done with
    them: no graph, no gradient of either mode, no other precision.
    """
    is_traced = is_tracing() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if is_traced or torch.is_autocast_enabled("cpu") or forward_ad._current_level >= 0:
        return False
    given = [one for one in tensors if one is not None]
    if torch.is_grad_enabled() and any(one.requires_grad for one in given):
        return False
    is_plain = all(
        type(one) in (Tensor, nn.Parameter)
        and one.device.type == "cpu"
        and one.dtype == torch.float32
        for one in given
    )
    return is_plain and choose_backend(device="cpu") == "numba"
