"""The arguments of a selective scan: gathered in one value and checked once.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

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
    "decay_dt": "BKLD",
    "dt_bias": "KD",
    "dt_weight": "KRD",
}
INDICES = ("order", "gap")
# Tensors whose values can be read; the others stand for tensors while a graph is traced.
PLAIN = (Tensor, torch.nn.Parameter)


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
    decay_dt: Tensor | None = None
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
        return accumulator_of(self.tensors)

    @property
    def num_steps(self) -> int:
        """Steps of a path T."""
        return self.x.shape[1] if self.order is None else self.order.shape[-1]

    @property
    def paths(self) -> Tensor:
        """The order as int64 (B, K, T), the identity path where none was given."""
        num_batch, length, _ = self.x.shape
        if self.order is None:
            return torch.arange(length, device=self.x.device).expand(num_batch, 1, length)
        return self.order.long().expand(num_batch, -1, -1)


def check_arguments(arguments: ScanArguments) -> None:
    """Check what a scan was given, before any work is done.

    Values are looked at on the CPU only: on a CUDA device that would wait for the queue. Nor are
    they while a graph is traced, where there are none. A table that passed is not looked at again
    until torch has written into it.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit together; all shapes are named.
        KernelError: If A is not negative, or an order has a pixel twice or out of range.
    """
    tensors = arguments.tensors
    _check_shapes(arguments, tensors)
    if have_values(tensors):
        _check_values(arguments, tensors)


def expand_steps(arguments: ScanArguments, dt: Tensor) -> Tensor:
    """Return dt (B, K, T, D or R) after weight, bias and softplus, (B, K, T, D) of its dtype."""
    if arguments.dt_weight is not None:
        dt = torch.einsum("bklr,krd->bkld", dt, arguments.dt_weight.to(dt.dtype))
    if arguments.dt_bias is not None:
        dt = dt + arguments.dt_bias.to(dt.dtype)[:, None]
    return functional.softplus(dt) if arguments.dt_softplus else dt


def accumulator_of(tensors: dict[str, Tensor]) -> torch.dtype:
    """Return the dtype that sums are kept in: float64 if any tensor is, else float32."""
    is_double = any(value.dtype == torch.float64 for value in tensors.values())
    return torch.float64 if is_double else torch.float32


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which nothing is narrowed behind the back of an operator."""
    is_known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if is_known else nullcontext()


def check_layouts(tensors: dict[str, Tensor], layouts: dict[str, str]) -> dict[str, int]:
    """Check that tensors fit together, and return the sizes by their letters.

    Args:
        tensors: By argument name; the first is the one whose device counts.
        layouts: What each tensor must look like, in letters; the same letter is the same size.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit together; all shapes are named.
    """
    sizes: dict[str, int] = {}
    first = next(iter(tensors.values()))
    device = first.device if isinstance(first, Tensor) else None
    for name, value in tensors.items():
        wanted = None
        if not isinstance(value, Tensor):
            raise ShapeError(f"{name} must be a tensor, got {type(value).__name__}")
        if name in INDICES:
            if value.dtype not in (torch.int32, torch.int64):
                wanted = f"int32 or int64, got {value.dtype}"
        elif not value.is_floating_point():
            wanted = f"a floating-point tensor, got {value.dtype}"
        if wanted is None and value.device != device:
            wanted = f"on the device of x, {device}, got {value.device}"
        letters, shape = layouts[name], value.shape
        fits = len(shape) == len(letters) and all(
            sizes.get(letter, size) == size for letter, size in zip(letters, shape, strict=True)
        )
        if wanted is None and not fits:
            expected = ", ".join(f"{letter}={sizes.get(letter, 'any')}" for letter in letters)
            wanted = f"({expected}), got {tuple(shape)}"
        if wanted is not None:
            raise ShapeError(f"{name} must be {wanted}{all_shapes(tensors)}")
        sizes.update(zip(letters, shape, strict=True))
    return sizes


def check_decay(A: Tensor, tensors: dict[str, Tensor]) -> None:
    """Check that A is negative.

    Raises:
        KernelError: If it is not; the shapes of all tensors are named.
    """
    # Where there is a NaN it is the maximum, and passes.
    if A.numel() > 0 and (highest := A.detach().amax().item()) >= 0:
        raise KernelError(
            f"A must be negative, got a maximum of {highest:.4g}; "
            f"pass -exp(A_log){all_shapes(tensors)}"
        )


def have_values(tensors: dict[str, Tensor]) -> bool:
    """Return whether the values of all tensors are there, and can be looked at without waiting."""
    return not torch.compiler.is_compiling() and all(
        type(value) in PLAIN and value.device.type == "cpu" for value in tensors.values()
    )


def all_shapes(tensors: dict[str, Tensor]) -> str:
    """Return the end of a message, which names all shapes."""
    given = tensors.items()
    return "; given: " + ", ".join(f"{name} {tuple(value.shape)}" for name, value in given)


def _check_shapes(arguments: ScanArguments, tensors: dict[str, Tensor]) -> None:
    layouts = dict(LAYOUTS)
    if arguments.dt_weight is not None:
        layouts["dt"] = "BKLR"
    for name in INDICES:
        if name in tensors and tensors[name].dim() == 3:
            layouts[name] = "BKT"
    sizes = check_layouts(tensors, layouts)
    order, gap, reason = arguments.order, arguments.gap, None
    # Maps may be empty, and paths; what describes a network may not.
    empty = [letter for letter in "KDNR" if sizes.get(letter, 1) == 0]
    if empty:
        reason = f"{empty[0]} must be at least 1, got 0"
    elif order is None and sizes["K"] != 1:
        reason = f"order is required for K={sizes['K']} paths, got None"
    elif (gap is None) != (arguments.gap_dt is None):
        reason = "gap and gap_dt must be given together"
    elif gap is not None and arguments.decay_dt is not None:
        reason = "decay_dt takes the place of gap and gap_dt"
    elif gap is not None and (order is None or gap.shape != order.shape):
        reason = "gap must have the shape of order"
    if reason is not None:
        raise ShapeError(f"{reason}{all_shapes(tensors)}")


def _check_values(arguments: ScanArguments, tensors: dict[str, Tensor]) -> None:
    gap, order = arguments.gap, arguments.order
    check_decay(arguments.A, tensors)
    if gap is not None and gap.numel() > 0 and _known_gaps.bound(gap) is None:
        lowest = int(gap.min())
        if lowest < 0:
            raise KernelError(f"gap must not be negative, got {lowest}{all_shapes(tensors)}")
        _known_gaps.keep(gap, lowest)
    if order is not None and order.numel() > 0:
        highest_pixel = _known_orders.bound(order)
        if highest_pixel is None or highest_pixel >= arguments.x.shape[1]:
            _check_order(order, tensors)


def _check_order(order: Tensor, tensors: dict[str, Tensor]) -> None:
    length = tensors["x"].shape[1]
    low, high = (int(value) for value in order.aminmax())
    if low < -1 or high >= length:
        raise KernelError(
            f"order must hold pixels 0..{length - 1} or -1 for padding, "
            f"got {low}..{high}{all_shapes(tensors)}"
        )
    # Each path counts in its own row; padding goes to a spare last column.
    rows = order.reshape(-1, order.shape[-1])
    target = torch.where(rows < 0, length, rows).long()
    visits = torch.zeros(rows.shape[0], length + 1, dtype=torch.int32, device=order.device)
    visits.scatter_add_(1, target, torch.ones_like(target, dtype=torch.int32))
    if bool((visits[:, :length] > 1).any()):
        path, pixel = (visits[:, :length] > 1).nonzero()[0].tolist()
        raise KernelError(
            f"order must visit a pixel at most once a path, got pixel {pixel} more than once "
            f"in path {path % order.shape[-2]}{all_shapes(tensors)}"
        )
    _known_orders.keep(order, high)


class _Known:
    """Tables that were found right, each with a bound of its values, for as long as they live."""

    def __init__(self) -> None:
        self._found = WeakTensorKeyDictionary()

    def bound(self, table: Tensor) -> int | None:
        """Return the bound of a table, or None if it is unknown or was written into."""
        version, bound = self._found.get(table, (None, None))
        return bound if version is not None and version == table._version else None

    def keep(self, table: Tensor, bound: int) -> None:
        """Note that a table is right."""
        # Tensors of inference mode do not count what is written into them.
        if not table.is_inference():
            self._found[table] = (table._version, bound)


_known_gaps, _known_orders = _Known(), _Known()
