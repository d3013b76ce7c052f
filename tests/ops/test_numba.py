"""The numba backend on threads, in forked processes, and on its first call.

That its results are right is shown in test_selective_scan.py.
"""

import logging
import time
from types import SimpleNamespace

import pytest
import torch

from cvmh.ops import _numba, _numba_threads, selective_scan
from cvmh.ops.arguments import ScanArguments

PREPARE = """
import torch
from cvmh.ops import _numba, _numba_threads, selective_scan
_numba.LONG = 0
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
x, dt = (torch.rand(4, 1, 90, 24, generator=generator) for _ in range(2))
B, C = (torch.rand(4, 1, 90, 2, generator=generator) for _ in range(2))
A = -torch.rand(1, 24, 2, generator=generator)
def scan():
    return selective_scan(x[:, 0], dt, A, B, C, backend="numba")
if _numba_threads._parallel() is not None:
    assert _numba_threads.count_threads() == 2
expected = scan()
"""
SITUATIONS = {
    "a forked process": """
import os
pid = os.fork()
if pid == 0:
    assert _numba_threads.count_threads() == 1
    os._exit(0 if torch.equal(scan(), expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
    "workers of a data loader": """
class Scans(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return scan()
for batch in torch.utils.data.DataLoader(Scans(), num_workers=2, multiprocessing_context="fork"):
    assert torch.equal(batch[0], expected)
""",
    "a pool of spawned processes": """
import multiprocessing
scans = [(x[:, 0], dt, A, B, C)] * 4
with multiprocessing.get_context("spawn").Pool(2) as pool:
    for result in pool.starmap(selective_scan, scans):
        assert torch.equal(result, expected)
""",
    "threads of Python": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    for result in pool.map(lambda _: scan(), range(40)):
        assert torch.equal(result, expected)
""",
}


@pytest.fixture
def set_threads(monkeypatch):
    """Return a function that sets torch's number of threads, and let short scans use them."""
    monkeypatch.setattr(_numba, "LONG", 0)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.skipif(_numba_threads._parallel() is None, reason="torch brings no GNU OpenMP")
@pytest.mark.parametrize("num_batch, D", [(1, 100), (3, 20), (1, 250), (1, 512)])
def test_results_do_not_depend_on_the_number_of_threads(make_scan, set_threads, num_batch, D):
    arguments = make_scan(9, 12, B=num_batch, D=D, rank=3, softplus=True, gaps=True)
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    leaves = [value.requires_grad_() for value in tensors if value.is_floating_point()]
    results = []
    for num_threads in (1, 2, 3, 5, 10):
        set_threads(num_threads)
        assert _numba_threads.count_threads() == num_threads
        y = selective_scan(**arguments, backend="numba")
        results.append([y, *torch.autograd.grad(y, leaves, torch.sin(y.detach()))])
    for several in results[1:]:
        assert all(map(torch.equal, results[0], several))


@pytest.mark.parametrize("num_batch", [1, 3])
def test_tiles_of_whole_vectors_cover_the_channels(make_scan, num_batch):
    for D in (1, 16, 96, 97, 144, 240, 250, 256, 320, 384, 512, 768, 1000):
        problem = _numba._Problem.of(ScanArguments(**make_scan(1, 2, B=num_batch, D=D, N=1)))
        for num_jobs in range(1, 65):
            width = problem.choose_tile(num_jobs)
            num_tiles = problem.count_tiles(width)
            assert (num_tiles - 1) * width < D <= num_tiles * width and width % 16 == 0


def test_short_scans_do_not_wake_threads(make_scan, monkeypatch):
    asked = []
    monkeypatch.setattr(_numba, "count_threads", lambda: asked.append(1) or 1)
    selective_scan(**make_scan(), backend="numba")
    assert asked == []
    selective_scan(**make_scan(64, 64, D=96, N=4), backend="numba")
    assert asked


@pytest.mark.parametrize("situation", SITUATIONS)
def test_scans_run_after_a_parallel_one_in(situation, start_python):
    process = start_python("-c", PREPARE + SITUATIONS[situation])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_without_a_compiler_numba_counts_as_missing(start_python):
    code = """
import os, warnings
os.environ["NUMBA_DISABLE_JIT"] = "1"
import torch
from cvmh.errors import KernelError
from cvmh.ops import choose_backend
try:
    choose_backend("numba")
except KernelError as error:
    assert "'numba' cannot be imported: NUMBA_DISABLE_JIT is set" in str(error)
else:
    raise AssertionError
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert choose_backend() == "torch" and len(told) == 1
"""
    process = start_python("-c", code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_numba_is_not_imported_before_a_scan(start_python):
    code = "import sys, cvmh.ops, cvmh.models.zoo; assert 'numba' not in sys.modules"
    process = start_python("-c", code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_a_long_compilation_is_told_once_and_while_it_lasts(monkeypatch, caplog):
    finished = []

    def compile_slowly(kernel):
        time.sleep(0.3)
        finished.append(len(caplog.records))
        return SimpleNamespace(address=0)

    monkeypatch.setattr(_numba, "NOTICED_SECONDS", 0.05)
    monkeypatch.setattr(_numba, "compile_kernel", compile_slowly)
    _numba._tell_of_compilation.cache_clear()
    with caplog.at_level(logging.INFO, logger="cvmh"):
        _numba._entry.__wrapped__(_numba.make_forward)
        _numba._entry.__wrapped__(_numba.make_backward)
    assert finished == [1, 1]
    assert "compiling the scan for this machine, which takes some seconds" in caplog.text


def test_a_short_compilation_is_not_told(monkeypatch, caplog):
    monkeypatch.setattr(_numba, "compile_kernel", lambda kernel: SimpleNamespace(address=0))
    _numba._tell_of_compilation.cache_clear()
    with caplog.at_level(logging.INFO, logger="cvmh"):
        _numba._entry.__wrapped__(_numba.make_forward)
    assert caplog.records == []


def test_after_a_warm_up_no_scan_compiles(start_python):
    code = """
import torch
from cvmh.ops import selective_scan, warm_up
warm_up()
from cvmh.ops import _numba
_numba.compile_kernel = None
x = torch.ones(1, 4, 8, requires_grad=True)
B = torch.ones(1, 1, 4, 1)
selective_scan(x, torch.ones(1, 1, 4, 8), -torch.ones(1, 8, 1), B, B).sum().backward()
assert x.grad is not None
"""
    process = start_python("-c", code)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_a_second_process_finds_the_kernels_in_the_cache(start_python, tmp_path):
    code = """
import os, sys
os.environ["NUMBA_CACHE_DIR"] = sys.argv[1]
from cvmh.ops import warm_up
warm_up()
"""
    found = []
    for _ in range(2):
        process = start_python("-c", code, str(tmp_path))
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        files = tmp_path.rglob("*.nbc")
        found.append(sorted((path.name, path.stat().st_mtime_ns) for path in files))
    assert len(found[0]) == 2 and found[0] == found[1]


@pytest.mark.parametrize("features", ["of this machine", "none"])
def test_powers_of_two_are_right_to_the_last_bits(start_python, features):
    """Every processor has at least one of the two ways to make them."""
    code = """
import sys, numpy as np
from numba import njit
from cvmh.ops import _numba_vectors as vectors
if sys.argv[1] == "none":
    vectors._has_avx512 = lambda context: False
@njit
def powers(source, target, count):
    for index in range(0, count, vectors.LANES):
        value = vectors.exp2(vectors.load_vector(source, index))
        vectors.store_vector(target, index, value)
inf, nan = np.inf, np.nan
special = [0, -0.0, 1, -1, -126, -127.5, -200, -1e30, -inf, 127, 128, 1e30, inf, nan, 0.5, -0.5]
x = np.concatenate([special, np.linspace(-126, 127.4, 4000), -np.logspace(-9, 2, 4000)])
x = x[: len(x) // 16 * 16].astype(np.float32)
y = np.empty_like(x)
powers(x.ctypes.data, y.ctypes.data, len(x))
with np.errstate(over="ignore"):
    exact = np.exp2(x.astype(np.float64))
ordinary = (x >= -126) & (x < 127.5)
assert (abs(y[ordinary] / exact[ordinary] - 1) <= 2e-7).all()
assert (y[x < -126] <= 2**-125.9).all() and (y[x < -160] == 0).all()
assert not np.isfinite(y[x >= 128]).any() and np.isnan(y[np.isnan(x)]).all()
# Slow decays keep their distance from one.
slow = (x < 0) & (x > -1e-4)
distance = -np.expm1(x[slow].astype(np.float64) * np.log(2))
assert (abs(1.0 - y[slow].astype(np.float64) - distance) <= 6e-8).all()
"""
    process = start_python("-c", code, features)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_without_a_folder_for_a_cache_kernels_are_compiled(monkeypatch):
    calls = []

    def refuse_cache(signature, *, cache=False):
        calls.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda kernel: kernel

    monkeypatch.setattr("cvmh.ops._numba_kernels.cfunc", refuse_cache)
    assert _numba.compile_kernel(_numba.make_forward) is not None
    assert calls == [True, False]
