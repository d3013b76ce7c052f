"""Freed memory is kept, so that asking for it again clears no page."""

import sys

import pytest

from cvmh import memory

COUNT_FAULTS = """
import ctypes, sys, resource, threading, torch
from cvmh.memory import keep_freed_memory
# What glibc starts from; it may learn from what is freed, which depends on chance.
M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
if sys.argv[1] == "kept":
    keep_freed_memory()
# More than the largest threshold of glibc.
maps = torch.randn(4, 10 << 20)
def work():
    return [a + a for a in maps]
def count():
    for _ in range(3):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# Networks run on threads.
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_maps_that_are_freed_and_asked_for_again_cost_no_page_faults(start_python):
    faults = {}
    for name in ("handed back", "kept"):
        process = start_python("-c", COUNT_FAULTS, name)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        faults[name] = int(output)
    assert faults["handed back"] > 10_000
    # Now and then a map does not fit between small pieces that came in between.
    assert faults["kept"] < faults["handed back"] / 3


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
    memory.release_freed()


HOLD = """
import numpy as np
from cvmh import memory
before = memory.resident()
block = np.ones(64 << 20, dtype="uint8")
assert 60 << 20 < memory.resident() - before < 80 << 20
assert memory.peak_resident() >= memory.resident()
peak = memory.peak_resident()
del block
memory.forget_peak()
assert memory.peak_resident() < peak - (40 << 20)
assert memory.available() > 1 << 20
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_memory_is_told_as_it_is_held_and_its_peak_until_it_is_forgotten(start_python):
    # In a process of its own: this one may have freed memory at hand.
    process = start_python("-c", HOLD)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_a_system_that_tells_nothing_is_not_asked_again(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / "none")
    assert memory.resident() == 0
    assert memory.available() is None
    assert memory.peak_resident() > 0
