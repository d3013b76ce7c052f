"""A scan that cannot run says so in one sentence, before it starts."""

import importlib

import pytest
import torch

from cvmh.errors import KernelError, ShapeError
from cvmh.ops import choose_backend, selective_scan

# The package exports a function of the module's name.
scan_module = importlib.import_module("cvmh.ops.selective_scan")

# What is wrong -> (the argument that replaces a good one, the sentence that must come).
WRONG_SHAPES = {
    "x": (lambda a: a["x"][0], "x must be (B=any, L=any, D=any), got (35, 8); given: x (35, 8)"),
    "dt": (lambda a: a["dt"][:, :3], "A must be (K=3, D=8, N=any), got (4, 8, 2)"),
    "A": (lambda a: a["A"].reshape(32, 2), "A must be (K=4, D=8, N=any), got (32, 2)"),
    "B": (lambda a: a["B"][..., :1], "B must be (B=2, K=4, L=35, N=2), got (2, 4, 35, 1)"),
    "C": (lambda a: a["C"][:, :, :9], "C must be (B=2, K=4, L=35, N=2), got (2, 4, 9, 2)"),
    "D": (lambda a: a["D"].T, "D must be (K=4, D=8), got (8, 4)"),
    "order": (lambda a: a["order"][:2], "order must be (K=4, T=any), got (2, 35)"),
    "dt_bias": (lambda a: torch.ones(8), "dt_bias must be (K=4, D=8), got (8,)"),
    "dt_weight": (lambda a: torch.ones(4, 3, 8), "dt_weight must be (K=4, R=8, D=8)"),
    "gap_dt": (lambda a: a["D"], "gap and gap_dt must be given together"),
    "gap": (lambda a: a["order"][:, :5], "gap must be (K=4, T=35), got (4, 5)"),
    "decay_dt": (lambda a: a["D"], "decay_dt must be (B=2, K=4, L=35, D=8), got (4, 8)"),
}
WRONG_TYPES = {
    "x": (lambda a: a["x"].int(), "x must be a floating-point tensor, got torch.int32"),
    "order": (lambda a: a["order"].double(), "order must be int32 or int64, got torch.float64"),
    "C": (lambda a: a["C"].to("meta"), "C must be on the device of x, cpu, got meta"),
}
WRONG_VALUES = {
    "A": (lambda a: -a["A"], "A must be negative, got a maximum of"),
    "order": (
        lambda a: a["order"] + 1,
        "order must hold pixels 0..34 or -1 for padding, got 1..35",
    ),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_shapes_that_do_not_fit_are_named(make_scan, name):
    change, message = WRONG_SHAPES[name]
    arguments = make_scan()
    with pytest.raises(ShapeError) as caught:
        selective_scan(**arguments | {name: change(arguments)})
    assert message in str(caught.value)
    assert "dt (2, " in str(caught.value) and "order (" in str(caught.value)


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_types_and_devices_that_do_not_fit_are_named(make_scan, name):
    change, message = WRONG_TYPES[name]
    arguments = make_scan()
    with pytest.raises(ShapeError) as caught:
        selective_scan(**arguments | {name: change(arguments)})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_values_out_of_range_are_named(make_scan, name):
    change, message = WRONG_VALUES[name]
    arguments = make_scan()
    with pytest.raises(KernelError) as caught:
        selective_scan(**arguments | {name: change(arguments)})
    assert message in str(caught.value)


def test_a_pixel_twice_in_one_path_is_named(make_scan):
    arguments = make_scan()
    order = arguments["order"].clone()
    order[2, 7] = order[2, 3]
    with pytest.raises(KernelError, match=rf"got pixel {order[2, 3]} more than once in path 2;"):
        selective_scan(**arguments | {"order": order})


def test_a_negative_gap_is_named(make_scan):
    arguments = make_scan(gaps=True)
    with pytest.raises(KernelError, match="gap must not be negative, got -4"):
        selective_scan(**arguments | {"gap": arguments["gap"] - 4})


def test_a_table_is_looked_at_again_when_it_was_written_into(make_scan):
    arguments = make_scan(gaps=True)
    arguments["order"] = arguments["order"].clone()
    for name, wrong in (("order", 35), ("gap", -1)):
        selective_scan(**arguments)
        before = arguments[name][1, 2].clone()
        arguments[name][1, 2] = wrong
        with pytest.raises(KernelError, match=f"{name} must"):
            selective_scan(**arguments)
        arguments[name][1, 2] = before


def test_a_table_that_passed_for_one_map_is_not_taken_for_a_smaller_one(make_scan):
    order = make_scan(paths="single")["order"]
    selective_scan(**make_scan(order=order))
    with pytest.raises(KernelError, match=r"order must hold pixels 0..29 or -1"):
        selective_scan(**make_scan(5, 6, order=order))


def test_gaps_of_another_form_than_the_order_are_refused(make_scan):
    arguments = make_scan(gaps=True)
    with pytest.raises(ShapeError, match="gap must have the shape of order; given: x"):
        selective_scan(**arguments | {"gap": arguments["gap"].expand(2, -1, -1)})


def test_several_paths_need_an_order(make_scan):
    with pytest.raises(ShapeError, match="order is required for K=4 paths, got None; given: x"):
        selective_scan(**make_scan() | {"order": None})


def test_an_unknown_backend_names_those_that_exist(make_scan):
    message = "backend must be auto or one of triton, numba, torch, reference.*, got 'cuda'"
    with pytest.raises(KernelError, match=message):
        selective_scan(**make_scan(), backend="cuda")


def test_the_environment_chooses_only_where_the_caller_does_not(monkeypatch):
    monkeypatch.delenv("CVMH_SCAN_BACKEND", raising=False)
    assert choose_backend() == choose_backend("auto", device="cpu") == "numba"
    # It knows what shapes come out without making anything.
    assert choose_backend("auto", device="meta") == "numba"
    assert choose_backend("auto", device="xpu") == "torch"
    monkeypatch.setenv("CVMH_SCAN_BACKEND", "reference")
    assert choose_backend() == "reference"
    assert choose_backend("torch") == "torch"
    monkeypatch.setenv("CVMH_SCAN_BACKEND", "fast")
    with pytest.raises(KernelError, match="CVMH_SCAN_BACKEND must be auto or one of"):
        choose_backend()


def test_without_numba_scans_warn_once_and_run_in_torch(monkeypatch, make_scan):
    monkeypatch.delenv("CVMH_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(scan_module, "_why_missing", lambda name: f"No module named {name!r}")
    scan_module._warn_if_missing.cache_clear()
    with pytest.warns(UserWarning, match="slower, for want of numba: No module named 'numba'"):
        y = selective_scan(**make_scan())
    assert torch.equal(y, selective_scan(**make_scan(), backend="torch"))
    assert choose_backend() == "torch"
    with pytest.raises(KernelError, match="backend 'numba' cannot be imported: No module"):
        choose_backend("numba")
    scan_module._warn_if_missing.cache_clear()


def test_numba_is_for_the_cpu():
    with pytest.raises(KernelError, match="'numba' needs tensors on the CPU, got cuda"):
        choose_backend("numba", device="cuda")


def test_triton_is_for_cuda(monkeypatch):
    monkeypatch.delenv("CVMH_SCAN_BACKEND", raising=False)
    pytest.importorskip("triton")
    assert choose_backend("auto", device="cuda") == choose_backend("triton", device="cuda")
    assert choose_backend("auto", device="cuda") == "triton"
    with pytest.raises(KernelError, match="'triton' needs tensors on a CUDA device, got cpu"):
        choose_backend("triton", device="cpu")


def test_without_triton_scans_on_cuda_warn_once_and_run_in_torch(monkeypatch):
    monkeypatch.delenv("CVMH_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(scan_module, "_why_missing", lambda name: f"No module named {name!r}")
    scan_module._warn_if_missing.cache_clear()
    with pytest.warns(UserWarning, match="slower, for want of triton: No module named 'triton'"):
        assert choose_backend("auto", device="cuda") == "torch"
    assert choose_backend("auto", device="cuda") == "torch"
    with pytest.raises(KernelError, match="backend 'triton' cannot be imported: No module"):
        choose_backend("triton", device="cuda")
    scan_module._warn_if_missing.cache_clear()


def test_a_ready_decay_and_gaps_exclude_each_other(make_scan):
    with pytest.raises(ShapeError, match="decay_dt takes the place of gap and gap_dt; given: x"):
        selective_scan(**make_scan(gaps=True, ready=True))


@pytest.mark.parametrize("letter, sizes", {"N": {"N": 0}, "D": {"D": 0}, "R": {"rank": 0}}.items())
def test_a_scan_of_no_channels_states_or_ranks_is_refused(make_scan, letter, sizes):
    with pytest.raises(ShapeError, match=f"{letter} must be at least 1, got 0; given: x"):
        selective_scan(**make_scan(**sizes, softplus=True))


def test_values_are_looked_at_whatever_the_default_device(make_scan):
    arguments = make_scan()
    arguments["order"] = arguments["order"].clone()
    with torch.device("meta"):
        assert selective_scan(**arguments, backend="numba").isfinite().all()


def test_what_is_no_tensor_is_refused(make_scan):
    with pytest.raises(ShapeError, match="x must be a tensor, got list"):
        selective_scan(**make_scan() | {"x": [1.0]})
    with pytest.raises(ShapeError, match="D must be a tensor, got float"):
        selective_scan(**make_scan() | {"D": 1.0})
