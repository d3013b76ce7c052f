"""Memory of the process: how the C library keeps what a network frees."""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h, and the most that it takes for the second.
TRIM_THRESHOLD, MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -1, -3, 32 << 20
KEPT = 1 << 30


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
    mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    mallopt(TRIM_THRESHOLD, KEPT)
