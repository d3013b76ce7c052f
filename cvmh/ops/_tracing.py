"""Questions about the graph that is being traced."""

import torch
from torch.compiler import assume_constant_result
from torch.utils._python_dispatch import _get_current_dispatch_mode


def is_tracing() -> bool:
    """Return whether operators are recorded or watched: tensors may be without values."""
    return torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None


@assume_constant_result  # type: ignore[untyped-decorator]
def is_exporting_to_onnx() -> bool:
    """Return whether ``torch.onnx.export`` is tracing."""
    # Without the first question, every scan would load torch's exporter.
    return torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()
