"""A pickle module for ``torch.load`` that rebuilds tensors and plain containers, and runs nothing.

A pickle is a program: it names functions and has them called. Here each name stands for one of the
few functions of the table below, or for :class:`Inert`, which takes any call and does nothing.
"""

import pickle
from collections import OrderedDict
from typing import IO, Any

import torch
from torch import Tensor

# torch.load looks these up in a pickle module.
__all__ = ["Inert", "Unpickler", "load"]


class Inert:
    """What stands in place of any object that is neither a tensor nor a plain container."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take the arguments of any constructor."""

    def __call__(self, *arguments: Any, **named: Any) -> "Inert":
        """Take any call."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Take any state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take the items of a dictionary."""

    def append(self, item: Any) -> None:
        """Take an item of a list."""

    def extend(self, items: Any) -> None:
        """Take the items of a list."""

    def add(self, item: Any) -> None:
        """Take an item of a set."""


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Rebuild a tensor; ``rest`` says what gradients and hooks it had."""
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Rebuild a tensor of a class of its own as a plain one."""
    return function(*arguments)


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type"): _of_type,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
}


class Unpickler(pickle.Unpickler):
    """Reads a pickle in which names stand for nothing but what :data:`KNOWN` holds."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        return KNOWN.get((module, name), Inert)


def load(file: IO[bytes], **options: Any) -> Any:
    """Read one pickle of a file, with the options of :class:`pickle.Unpickler`."""
    return Unpickler(file, **options).load()
