"""Questions about the graph that is being traced."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

F = TypeVar("F", bound=Callable[..., Any])


def is_tracing() -> bool:
    """Return whether operators are recorded or watched: tensors may be without values."""
    return torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None


def constant_in_graphs(function: F) -> F:
    """Let ``torch.compile`` call a function while it traces, and take its result as a constant.

    The same as ``torch.compiler.assume_constant_result``, but that loads the compiler: a second
    and 150 MB, which whoever never compiles should not pay.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_in_graphs
def is_exporting_to_onnx() -> bool:
    """Return whether ``torch.onnx.export`` is tracing."""
    # Without the first question, every scan would load torch's exporter.
    return torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()
