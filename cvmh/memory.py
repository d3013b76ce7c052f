"""Memory of the process: how much it is, and how the C library keeps what a network frees."""

import contextlib
import ctypes
import sys
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
KEPT = 1 << 30
# Linux forgets the peak of a process when this is written there; see proc(5).
CLEAR_REFS, RESET_PEAK = Path("/proc/self/clear_refs"), "5"
# Where Linux tells of the control group of the process, if it is in a container.
GROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Let the process keep up to 1 GiB that it has freed, instead of handing it back at once.

    A network frees and asks for maps of some megabytes at every layer. glibc hands such pieces back
    to the system, which clears each page anew when it is asked for again: on the CPU a tenth of a
    network's time. Programs call this when they start; other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    # Pieces of their own mappings, and those of the other threads' arenas, are always handed back.
    mallopt(MMAP_MAX, 0)
    mallopt(ARENA_MAX, 1)
    mallopt(TRIM_THRESHOLD, KEPT)


def release_freed() -> None:
    """Hand back to the system what is freed but kept; see :func:`keep_freed_memory`."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Return the bytes of memory that the process holds now, 0 where the system does not tell."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Return the most bytes that the process has held, since :func:`forget_peak` if it worked."""
    if found := _status("VmHWM"):
        return found
    if sys.platform == "win32":
        return 0
    import resource

    # Kilobytes, but on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let :func:`peak_resident` begin anew, where the system can."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)


def available() -> int | None:
    """Return the bytes of memory that the machine can give, None if it does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return min(int(found[0]) * 1024, *_limits_of_container())
    return None


def _limits_of_container() -> list[int]:
    """Return what control groups leave to the process, beside a number that limits nothing."""
    limits = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, KeyError):
        most = int((GROUP / "memory.max").read_text())
        used = int((GROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        # Files that were read stay in memory and count as used, until someone needs the room.
        limits.append(most - used + int(counts["inactive_file"]))
    return limits


def _status(name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
