"""Running one function on several threads: those that torch has, or the caller's alone.

numba's own thread pools are no choice: one aborts when two Python threads meet in it, the other
hangs or dies in a forked process. torch's OpenMP pool is started and idle anyway. It can be had
where torch brings GNU OpenMP, which is on Linux.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

Function = Callable[[int], None]
FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

# In a forked process the pool's threads are missing, and waiting for them would never end.
_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def count_threads() -> int:
    """Return how many threads may be had."""
    if _is_forked or _parallel() is None or torch.utils.data.get_worker_info() is not None:
        return 1
    return torch.get_num_threads()


def run_on_threads(function: Function, argument: int, num_threads: int) -> None:
    """Call a compiled ``function(argument)`` once on each of some threads, and wait for them."""
    parallel = _parallel()
    if num_threads == 1 or parallel is None:
        function(argument)
    else:
        parallel(function, argument, num_threads, 0)


@cache
def _parallel() -> Callable[[Function, int, int, int], None] | None:
    """Return GNU OpenMP's function that starts a team, if torch has it loaded."""
    if not sys.platform.startswith("linux"):
        return None
    folders = [Path(torch.__file__).parent / "lib"]
    folders.append(folders[0].parents[1] / "torch.libs")
    for path in sorted(path for folder in folders for path in folder.glob("libgomp*.so*")):
        try:
            # Without loading: another copy would have other threads.
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
        parallel = library.GOMP_parallel
        parallel.argtypes = [FUNCTION, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
