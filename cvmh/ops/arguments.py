"""The arguments of a selective scan: gathered in one value and checked once.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvmh.errors import KernelError, ShapeError

# What each tensor must look like in the letters of the legend; T and R are free.
LAYOUTS = {
    "x": "BLD",
    "dt": "BKLD",
    "A": "KDN",
    "B": "BKLN",
    "C": "BKLN",
    "D": "KD",
    "order": "KT",
    "gap": "KT",
    "gap_dt": "KD",
    "dt_bias": "KD",
    "dt_weight": "KRD",
}
INDICES = ("order", "gap")


@dataclass(frozen=True, kw_only=True)
class ScanArguments:
    """What a scan works on; `cvmh.ops.selective_scan` says what each field means."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    order: Tensor | None = None
    gap: Tensor | None = None
    gap_dt: Tensor | None = None
    dt_bias: Tensor | None = None
    dt_softplus: bool = False
    dt_weight: Tensor | None = None
    merge: bool = True

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that were given, by argument name."""
        values = {name: getattr(self, name) for name in LAYOUTS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def accumulator(self) -> torch.dtype:
        """The dtype of the state and of the output: float64 if any input is, else float32."""
        is_double = any(value.dtype == torch.float64 for value in self.tensors.values())
        return torch.float64 if is_double else torch.float32

    @property
    def paths(self) -> Tensor:
        """The order as int64 (B, K, T), the identity path where none was given."""
        num_batch, length, _ = self.x.shape
        if self.order is None:
            return torch.arange(length, device=self.x.device).expand(num_batch, 1, length)
        return self.order.long().expand(num_batch, -1, -1)


def check_arguments(arguments: ScanArguments) -> None:
    """Check what a scan was given, before any work is done.

    Values are looked at on the CPU only: on a CUDA device that would wait for the queue.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit together; all shapes are named.
        KernelError: If A is not negative, or an order has a pixel twice or out of range.
    """
    _check_types(arguments)
    _check_shapes(arguments)
    if arguments.x.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(arguments)


def _all_shapes(arguments: ScanArguments) -> str:
    given = arguments.tensors.items()
    return "; given: " + ", ".join(f"{name} {tuple(value.shape)}" for name, value in given)


def _check_types(arguments: ScanArguments) -> None:
    shapes = _all_shapes(arguments)
    for name, value in arguments.tensors.items():
        if name in INDICES and value.dtype not in (torch.int32, torch.int64):
            raise ShapeError(f"{name} must be int32 or int64, got {value.dtype}{shapes}")
        if name not in INDICES and not value.is_floating_point():
            raise ShapeError(f"{name} must be a floating-point tensor, got {value.dtype}{shapes}")
        if value.device != arguments.x.device:
            raise ShapeError(
                f"{name} must be on the device of x, {arguments.x.device}, "
                f"got {value.device}{shapes}"
            )


def _check_shapes(arguments: ScanArguments) -> None:
    shapes = _all_shapes(arguments)
    sizes: dict[str, int] = {}
    for name, value in arguments.tensors.items():
        letters = LAYOUTS[name]
        if name == "dt" and arguments.dt_weight is not None:
            letters = "BKLR"
        if name in INDICES and value.dim() == 3:
            letters = "BKT"
        expected = ", ".join(f"{letter}={sizes.get(letter, 'any')}" for letter in letters)
        fits = value.dim() == len(letters) and all(
            sizes.setdefault(letter, size) == size
            for letter, size in zip(letters, value.shape, strict=True)
        )
        if not fits:
            raise ShapeError(f"{name} must be ({expected}), got {tuple(value.shape)}{shapes}")
    if arguments.order is None and sizes["K"] != 1:
        raise ShapeError(f"order is required for K={sizes['K']} paths, got None{shapes}")
    if (arguments.gap is None) != (arguments.gap_dt is None):
        raise ShapeError(f"gap and gap_dt must be given together{shapes}")
    if arguments.gap is not None and (
        arguments.order is None or arguments.gap.shape != arguments.order.shape
    ):
        raise ShapeError(f"gap must have the shape of order{shapes}")


def _check_values(arguments: ScanArguments) -> None:
    shapes = _all_shapes(arguments)
    if bool((arguments.A >= 0).any()):
        raise KernelError(
            f"A must be negative, got a maximum of {float(arguments.A.max()):.4g}; "
            f"pass -exp(A_log){shapes}"
        )
    if arguments.gap is not None and bool((arguments.gap < 0).any()):
        raise KernelError(f"gap must not be negative, got {int(arguments.gap.min())}{shapes}")
    if arguments.order is None or arguments.order.numel() == 0:
        return
    order, length = arguments.order, arguments.x.shape[1]
    low, high = (int(value) for value in order.aminmax())
    if low < -1 or high >= length:
        raise KernelError(
            f"order must hold pixels 0..{length - 1} or -1 for padding, got {low}..{high}{shapes}"
        )
    # Each path counts in its own row; padding goes to a spare last column.
    rows = order.reshape(-1, order.shape[-1])
    target = torch.where(rows < 0, length, rows).long()
    visits = torch.zeros(rows.shape[0], length + 1, dtype=torch.int32)
    visits.scatter_add_(1, target, torch.ones_like(target, dtype=torch.int32))
    if bool((visits[:, :length] > 1).any()):
        path, pixel = (visits[:, :length] > 1).nonzero()[0].tolist()
        raise KernelError(
            f"order must visit a pixel at most once a path, got pixel {pixel} more than once "
            f"in path {path % order.shape[-2]}{shapes}"
        )
