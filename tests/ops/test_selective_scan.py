"""Every fast backend gives what the reference gives: output and each gradient.

A new backend is one more name in BACKENDS.
"""

import pytest
import torch

from cvmh.ops import _chunks, kept_tables, order_table, selective_scan

BACKENDS = ["torch", "numba"]
SIZES = {1: (1, 1), 2: (1, 2), 63: (7, 9), 64: (4, 16), 65: (5, 13), 100: (20, 5)}

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.parametrize("N", [1, 2, 4, 16])
@pytest.mark.parametrize("length", SIZES)
def test_odd_lengths_and_state_sizes(backend, make_scan, check, length, N):
    D = {1: 24, 2: 16}.get(N, 8)
    check(make_scan(*SIZES[length], D=D, N=N), backend)


@pytest.mark.parametrize("D", [1, 5, 13, 50, 100, 197])
def test_any_number_of_channels(backend, make_scan, check, D):
    check(make_scan(3, 5, D=D, N=1, rank=2, softplus=True), backend)
    check(make_scan(3, 5, B=1, D=D, N=2), backend, merge=False)


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low-rank"])
@pytest.mark.parametrize("gaps", [False, True], ids=["dense", "gaps"])
@pytest.mark.parametrize("N", [1, 3])
def test_every_option_with_every_other(backend, make_scan, check, N, gaps, rank, softplus, merge):
    arguments = make_scan(N=N, gaps=gaps, rank=rank, softplus=softplus)
    check(arguments, backend, merge=merge)


@pytest.mark.parametrize("N, rank", [(1, None), (3, 2)])
def test_a_ready_decay_on_paths_with_padding(backend, make_scan, check, N, rank):
    order = order_table("ss2d", 7, 9).clone()
    order[:, 5::7] = -1
    check(make_scan(7, 9, D=20, N=N, order=order, rank=rank, softplus=True, ready=True), backend)


def test_a_ready_decay_of_gaps_equals_gaps(backend, make_scan):
    arguments = make_scan(softplus=True, gaps=True, dtype=torch.float64)
    expected = selective_scan(**arguments, backend=backend)
    gap, gap_dt = arguments.pop("gap"), arguments.pop("gap_dt")
    in_pixel_order = torch.zeros(4, 35, dtype=torch.int32)
    in_pixel_order.scatter_(1, arguments["order"].long(), gap)
    dt = torch.nn.functional.softplus(arguments["dt"] + arguments["dt_bias"][:, None])
    ready = dt + in_pixel_order[..., None] * gap_dt[:, None]
    got = selective_scan(**arguments, decay_dt=ready, backend=backend)
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("paths", ["ss2d", "cs2d", "snake", "bidirectional", "single"])
def test_every_set_of_paths_on_a_map_that_is_not_square(backend, make_scan, check, paths):
    check(make_scan(6, 11, paths=paths, N=1), backend)


@pytest.mark.parametrize("num_batch", [1, 3])
def test_without_order_and_skip(backend, make_scan, check, num_batch):
    arguments = make_scan(B=num_batch, paths="single", skip=False)
    check(arguments | {"order": None}, backend)


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("num_steps", [1, 20])
def test_short_random_paths_for_each_image_with_padding(
    backend, make_scan, check, num_steps, merge
):
    generator = torch.Generator().manual_seed(3)
    permutations = [torch.randperm(35, generator=generator) for _ in range(6)]
    order = torch.stack(permutations).reshape(2, 3, 35)[..., :num_steps].int()
    order[1, :, num_steps // 2 :] = -1
    order[0, 1, ::4] = -1
    check(make_scan(order=order, softplus=True, gaps=True), backend, merge=merge)


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low-rank"])
def test_bias_without_softplus_on_paths_with_padding(backend, make_scan, check, rank):
    order = order_table("ss2d", 7, 9).clone()
    order[:, 5::7] = -1
    arguments = make_scan(7, 9, order=order, softplus=True, rank=rank)
    positive = {name: arguments[name].exp() for name in ("dt", "dt_bias")}
    check(arguments | positive | {"dt_softplus": False}, backend)


def test_empty_paths_give_zeros_and_no_gradient(backend, make_scan, run):
    arguments = make_scan(order=order_table("ss2d", 5, 7)[:, :0], gaps=True)
    for name, value in run(arguments, backend=backend).items():
        assert (value == 0).all(), name


@pytest.mark.parametrize("step, block", [(1, 1), (1, 4000), (1000, 1500), (1000, 9000)])
def test_result_does_not_depend_on_blocks_and_chunks(
    backend, make_scan, check, monkeypatch, step, block
):
    if backend == "torch":
        monkeypatch.setitem(_chunks.SIZES, "cpu", _chunks.Sizes(step=step, block=block))
    check(make_scan(10, 11, N=1, softplus=True, gaps=True), backend)
    check(make_scan(10, 11, N=2, rank=2), backend)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bit_inputs_give_a_float32_output(backend, make_scan, run, check, dtype):
    arguments = make_scan(softplus=True, rank=4)
    narrow = {name: arguments[name].to(dtype) for name in ("x", "dt", "B", "C")}
    got = run(arguments | narrow, backend=backend)
    assert got["y"].dtype == got["A"].dtype == torch.float32
    assert got["x"].dtype == got["dt"].dtype == got["B"].dtype == dtype
    check(arguments | narrow, backend)


def test_autocast_changes_nothing(backend, make_scan, run):
    arguments = make_scan(rank=4, softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(arguments, backend=backend)
    for name, value in run(arguments, backend=backend).items():
        assert torch.equal(value, inside[name]), name


def test_two_runs_agree_bit_for_bit(backend, make_scan, run):
    arguments = make_scan(16, 20, D=24, N=4, softplus=True, gaps=True)
    first, second = (run(arguments, backend=backend) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["x", "dt", "B"])
def test_what_is_not_finite_reaches_all_later_pixels_and_no_earlier_one(
    backend, make_scan, name, poison
):
    arguments = make_scan(1, 30, paths="single", N=1)
    # Steps that never decay to zero, so that nothing is forgotten.
    value = arguments[name].clone()
    value[0, ..., 11, :] = poison
    y = selective_scan(**arguments | {name: value}, backend=backend)
    assert y[0, :11].isfinite().all() and y[1].isfinite().all()
    if name == "dt" and poison == float("inf"):
        assert not y[0, 11].isfinite().any()
    else:
        assert not y[0, 11:].isfinite().any()


@pytest.mark.parametrize("name", ["x", "dt", "B", "C"])
def test_what_is_not_finite_stays_in_its_image(backend, make_scan, run, name):
    arguments = make_scan(10, 9, D=5, rank=2, softplus=True)
    value = arguments[name].clone()
    value[0] = float("nan")
    results = run(arguments | {name: value}, backend=backend)
    for result in ("y", "x", "dt", "B", "C"):
        assert results[result][1].isfinite().all(), result


def test_steps_of_zero_hold_the_state(backend, make_scan, check):
    arguments = make_scan(1, 30, paths="single", N=1, skip=False)
    arguments["dt"][:, :, 10:] = 0
    arguments["C"] = torch.ones_like(arguments["C"])
    y = selective_scan(**arguments, backend=backend)
    assert torch.allclose(y[:, 10:], y[:, 9:10].expand_as(y[:, 10:]), rtol=1e-6)
    check(arguments, backend)


def test_huge_steps_forget_the_past(backend, make_scan, check):
    arguments = make_scan(1, 30, paths="single", N=2, skip=False)
    arguments["dt"][:] = 1e4
    y = selective_scan(**arguments, backend=backend)
    own = (arguments["B"] * arguments["C"]).sum(dim=-1)[:, 0, :, None]
    assert torch.allclose(y, 1e4 * arguments["x"] * own, rtol=1e-5)
    check(arguments, backend)


def test_merged_paths_are_the_sum_of_single_scans(backend, make_scan):
    arguments = make_scan(softplus=True, gaps=True, dtype=torch.float64)
    total = torch.zeros_like(arguments["x"])
    by_path = {"dt": 1, "B": 1, "C": 1, "A": 0, "D": 0, "dt_bias": 0, "gap_dt": 0}
    for path in range(4):
        alone = {name: arguments[name].narrow(dim, path, 1) for name, dim in by_path.items()}
        alone |= {name: arguments[name][path : path + 1] for name in ("order", "gap")}
        total += selective_scan(**arguments | alone, backend=backend)
    merged = selective_scan(**arguments, backend=backend)
    assert torch.allclose(merged, total, rtol=1e-12, atol=1e-12)


def test_only_what_needs_a_gradient_may_ask_for_one(backend, make_scan):
    arguments = make_scan(N=1)
    x = arguments["x"].requires_grad_()
    selective_scan(**arguments, backend=backend).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_gradients_pass_gradcheck(backend, make_scan):
    order = order_table("cs2d", 2, 3).clone()
    order[0, 2] = -1
    arguments = make_scan(
        *(2, 3), B=1, D=2, rank=1, softplus=True, gaps=True, order=order, dtype=torch.float64
    )
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    names = [name for name in names if arguments[name].is_floating_point()]

    def scan(*values):
        return selective_scan(**arguments | dict(zip(names, values, strict=True)), backend=backend)

    leaves = [arguments[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(scan, leaves)


@pytest.mark.parametrize("kept", [0, 1, 12, 35])
def test_pruned_paths_with_gaps_equal_the_masked_dense_scan(backend, make_scan, kept):
    arguments = make_scan(dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    keep = torch.zeros(35, dtype=torch.bool)
    keep[torch.randperm(35, generator=generator)[:kept]] = True
    gap_dt = torch.rand(4, 8, generator=generator, dtype=torch.float64)

    # Dense: a dropped pixel has no input, and the step that an empty pixel would have.
    dense = dict(arguments)
    dense["x"] = arguments["x"] * keep[:, None]
    dense["dt"] = torch.where(keep[:, None], arguments["dt"], gap_dt[:, None])
    expected = selective_scan(**dense, backend="reference") * keep[:, None]

    tables = kept_tables(arguments["order"], keep[None], place=torch.arange(35)[None])
    pruned = arguments | {"order": tables.order[0], "gap": tables.gap[0], "gap_dt": gap_dt}
    got = selective_scan(**pruned, backend=backend)
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_batch, width", [(0, 7), (2, 0)], ids=["no image", "no pixel"])
@pytest.mark.parametrize("rank", [None, 2])
def test_nothing_to_scan_is_no_error(backend, make_scan, run, num_batch, width, rank):
    order = order_table("snake", 5, 7)[:, : 5 * width]
    arguments = make_scan(5, width, B=num_batch, order=order, rank=rank, softplus=True)
    results = run(arguments, backend=backend)
    assert results["y"].shape == (num_batch, 5 * width, 8)
    assert all((results[name] == 0).all() for name in ("A", "D", "dt_bias"))


def test_shapes_are_found_without_values(backend, make_scan):
    arguments = make_scan(rank=2, softplus=True)
    on_meta = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }
    assert selective_scan(**on_meta, backend="auto").shape == (2, 35, 8)
