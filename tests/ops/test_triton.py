"""The triton backend: how paths pair, the interpreter's tests, and large scans on a GPU."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from cvmh.errors import KernelError
from cvmh.ops import kept_tables, order_table, selective_scan
from cvmh.ops._triton_plan import TABLES, Tile, choose_tile, pair_paths

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(
    "paths, slots",
    [
        ("ss2d", [0, 2, 1, 3]),
        ("snake", [0, 1, 2, 3]),
        ("bidirectional", [0, 1]),
        ("cs2d", None),
        ("single", None),
    ],
)
def test_paths_pair_with_their_exact_reverse(paths, slots):
    order = order_table(paths, 4, 5)
    pairing = pair_paths(order, num_pixels=20, merge=True)
    assert pairing.is_complete
    if slots is None:
        assert pairing.sides == 1
    else:
        assert pairing.sides == 2 and pairing.slots.tolist() == slots
    apart = pair_paths(order, num_pixels=20, merge=False)
    assert apart.sides == 1 and apart.slots.tolist() == list(range(len(order)))


def test_a_table_is_looked_at_again_after_a_write_and_not_trusted_with_padding():
    order = order_table("bidirectional", 3, 4).clone()
    assert pair_paths(order, num_pixels=12, merge=True)[1:] == (2, True)
    order[0, 3] = -1
    assert pair_paths(order, num_pixels=12, merge=True)[1:] == (1, False)
    order[1, 8] = -1
    assert pair_paths(order, num_pixels=12, merge=True)[1:] == (2, False)
    # As many steps as pixels, but of a larger map.
    assert not pair_paths(order_table("single", 3, 4), num_pixels=13, merge=True).is_complete


def test_orders_of_single_images_are_not_looked_at():
    order = order_table("ss2d", 3, 3).expand(2, -1, -1)
    assert pair_paths(order, num_pixels=9, merge=True)[1:] == (1, False)


def test_a_new_table_in_a_capture_is_refused(monkeypatch):
    order = order_table("ss2d", 2, 3).clone()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(KernelError, match="scanned before a CUDA graph is captured, got a new"):
        pair_paths(order, num_pixels=6, merge=True)


def test_tables_of_inference_mode_pair_too():
    with torch.inference_mode():
        order = order_table("ss2d", 3, 3).clone()
        assert pair_paths(order, num_pixels=9, merge=True).sides == 2


def test_tiles_suit_the_number_of_states_and_of_programs():
    table = TABLES["gpu"]

    def states(N):
        return choose_tile(table, table.forward, num_states=N, rank=0, lanes=1 << 30).states

    assert [states(N) for N in (1, 3, 4, 8, 16, 40)] == [1, 4, 4, 4, 16, 16]
    wide = choose_tile(table, table.forward, num_states=1, rank=0, lanes=1 << 30)
    assert wide == Tile(1, 128, 4)
    few = choose_tile(table, table.forward, num_states=1, rank=0, lanes=1 << 15)
    low_rank = choose_tile(table, table.forward, num_states=1, rank=6, lanes=1 << 30)
    assert few == low_rank == Tile(1, 32, 4)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tiles_fit_the_chunks(table):
    for tile in (*table.forward, *table.backward):
        assert all(chunk % tile.steps == 0 for chunk in table.chunk)
        assert tile.channels % table.narrow == 0


def test_triton_is_not_imported_before_a_scan(start_python):
    code = "import sys, cvmh.ops; assert 'cvmh.ops._triton' not in sys.modules"
    process = start_python("-c", code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@needs_triton
def test_tensors_on_the_cpu_need_the_interpreter(make_scan, monkeypatch):
    monkeypatch.setattr("cvmh.ops._triton.is_interpreted", lambda: False)
    with pytest.raises(KernelError, match="'triton' needs tensors on a CUDA device, got cpu"):
        selective_scan(**make_scan(), backend="triton")


@needs_triton
@pytest.mark.slow
def test_in_the_interpreter_results_are_those_of_the_reference(start_python, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    tests = Path(__file__).with_name("interpreted_triton.py")
    process = start_python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors


def on_gpu(arguments):
    return {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }


GPU_SCANS = {
    "one state": {"D": 96, "N": 1, "softplus": True},
    "many images": {"D": 192, "N": 1, "B": 8},
    "sixteen states": {"D": 96, "N": 16, "B": 1, "paths": "cs2d"},
    "odd numbers": {"D": 77, "N": 5, "paths": "snake", "gaps": True},
    "low rank": {"D": 96, "N": 1, "rank": 6, "softplus": True},
    "higher rank": {"D": 192, "N": 2, "rank": 12, "softplus": True, "gaps": True},
}


@needs_cuda
@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("size", [(64, 64), (61, 47)], ids=str)
@pytest.mark.parametrize("scan", GPU_SCANS)
def test_on_a_gpu_results_are_those_of_torch(make_scan, run, assert_close, scan, size, merge):
    options = {"paths": "ss2d"} | GPU_SCANS[scan]
    arguments = on_gpu(make_scan(*size, **options))
    expected = run(arguments, backend="torch", dtype=torch.float64, merge=merge)
    assert_close(run(arguments, backend="triton", merge=merge), expected)


@needs_cuda
@needs_triton
@pytest.mark.gpu
def test_on_a_gpu_tables_of_kept_tokens_are_scanned_as_by_torch(make_scan, run, assert_close):
    keep = torch.rand(2, 61 * 47, generator=torch.Generator().manual_seed(0)).cuda()
    keep = keep < torch.tensor([[0.3], [0.8]], device="cuda")
    pixels = torch.arange(61 * 47, device="cuda").expand_as(keep)
    order = order_table("snake", 61, 47, device="cuda")
    tables = kept_tables(order, keep, size=61 * 47, place=pixels)
    arguments = make_scan(61, 47, D=96, N=1, paths="snake", softplus=True, rank=6, gaps=True)
    arguments = on_gpu(arguments) | {"order": tables.order, "gap": tables.gap}
    expected = run(arguments, backend="torch", dtype=torch.float64)
    assert_close(run(arguments, backend="triton"), expected)


@needs_cuda
@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu_inputs_may_have_sixteen_bits(make_scan, run, assert_close, dtype):
    arguments = on_gpu(make_scan(64, 64, D=96, N=1, paths="ss2d", softplus=True, rank=6))
    narrow = arguments | {name: arguments[name].to(dtype) for name in ("x", "dt", "B", "C")}
    expected = run(narrow, backend="torch", dtype=torch.float64)
    assert_close(run(narrow, backend="triton"), expected)
    with torch.autocast("cuda", dtype=dtype):
        inside = run(narrow, backend="triton")
    for name, value in run(narrow, backend="triton").items():
        assert torch.equal(value, inside[name]), name


@needs_cuda
@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("scan", GPU_SCANS)
def test_on_a_gpu_two_runs_agree_bit_for_bit(make_scan, run, scan):
    arguments = on_gpu(make_scan(64, 64, **{"paths": "ss2d"} | GPU_SCANS[scan]))
    first, second = (run(arguments, backend="triton") for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@needs_cuda
@needs_triton
@pytest.mark.gpu
def test_on_a_gpu_kernels_have_one_stage(make_scan, run, monkeypatch):
    import triton

    stages = []
    launch = triton.JITFunction.run

    def watch(self, *args, **options):
        kernel = launch(self, *args, **options)
        stages.append(kernel.metadata.num_stages)
        return kernel

    monkeypatch.setattr(triton.JITFunction, "run", watch)
    run(on_gpu(make_scan(32, 32, D=96, N=1, paths="ss2d")), backend="triton")
    assert len(stages) >= 6 and set(stages) == {1}
