"""Running a kernel of numba that is told a plan: numbers and addresses by name."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numba import from_dtype, types
from torch import Tensor
from torch.nn import functional

from cvmh.ops._numba_kernels import compile_kernel
from cvmh.ops._numba_sizes import LANES
from cvmh.ops._numba_threads import FUNCTION, Function, count_threads, run_on_threads


def in_vectors(values: Tensor) -> Tensor:
    """Return values, contiguous, with zeros behind that make the last dimension whole vectors."""
    if rest := -values.shape[-1] % LANES:
        values = functional.pad(values, (0, rest))
    return values.contiguous()


class Kernel:
    """A kernel whose threads take one job after the other, compiled when it first runs.

    Args:
        make: takes a stamp that is not zero, as :func:`compile_kernel` wants it, and returns the
            kernel: a function of an array of one plan, whose ``counter`` gives the tickets.
        fields: names of the plan.
    """

    def __init__(self, make: Callable[[int], Any], *fields: str) -> None:
        self._make = make
        self._plan = np.dtype([(name, np.int64) for name in (*fields, "counter")])

    def run(self, num_jobs: int, **values: int) -> None:
        """Run on as many threads as torch has, and there are jobs for; addresses must stay alive.

        Args:
            num_jobs: tickets that find work.
            **values: of the plan, by name.
        """
        counter = np.zeros(1, dtype=np.int64)
        values["counter"] = counter.ctypes.data
        plan = np.array([values[name] for name in self._plan.names or ()], dtype=np.int64)
        run_on_threads(self._entry, plan.ctypes.data, max(1, min(count_threads(), num_jobs)))

    @cached_property
    def _entry(self) -> Function:
        machine_code = compile_kernel(
            self._make, types.void(types.CPointer(from_dtype(self._plan)))
        )
        function = FUNCTION(machine_code.address)
        # A ctypes function does not keep its code alive.
        function.machine_code = machine_code  # type: ignore[attr-defined]
        return function
