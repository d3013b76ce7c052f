"""The triton backend in triton's interpreter gives what the reference gives.

test_triton.py runs this file in a process of its own, because kernels are interpreted or not from
the first import of triton on. A step of a path takes milliseconds here: cases are tiny, but of
several chunks, which have 8 steps, and several tiles of 16 channels.
"""

import pytest
import torch

from cvmh.ops import _triton, aligned_scan, order_table, selective_scan
from cvmh.ops._operators import FIELDS, FLOATS


def test_the_interpreter_is_on():
    assert _triton.is_interpreted()


@pytest.mark.parametrize(
    "N, num_channels, paths",
    [(1, 17, "single"), (2, 3, "bidirectional"), (5, 3, "single")],
    ids=["two tiles", "a pair", "three groups"],
)
def test_odd_sizes(make_scan, check, N, num_channels, paths):
    check(make_scan(3, 5, B=1, D=num_channels, N=N, paths=paths, softplus=True), "triton")


def test_a_ready_decay_takes_the_torch_backend(make_scan, run):
    arguments = make_scan(ready=True)
    got, expected = (run(arguments, backend=backend) for backend in ("triton", "torch"))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_pairs_whose_last_chunk_is_not_full(make_scan, check):
    arguments = make_scan(2, 5, B=2, D=3, N=1, paths="bidirectional", gaps=True)
    check(arguments, "triton")


def test_two_pairs_in_one_chunk_of_several_groups(make_scan, check):
    check(make_scan(2, 3, B=1, D=3, N=3, paths="ss2d"), "triton")


def test_apart_a_pair_is_two_paths(make_scan, check):
    arguments = make_scan(2, 5, B=1, D=3, N=1, paths="bidirectional")
    check(arguments, "triton", merge=False)


def test_random_paths_for_each_image_with_gaps_and_padding(make_scan, check):
    generator = torch.Generator().manual_seed(3)
    permutations = [torch.randperm(12, generator=generator) for _ in range(4)]
    order = torch.stack(permutations).reshape(2, 2, 12)[..., :10].int()
    order[1, :, 7:] = -1
    order[0, 1, ::4] = -1
    arguments = make_scan(3, 4, D=3, N=1, order=order, softplus=True, gaps=True, rank=2)
    check(arguments, "triton")
    y = selective_scan(**arguments, backend="triton", merge=False)
    assert (y[1, 0, [pixel for pixel in range(12) if pixel not in order[1, 0]]] == 0).all()


@pytest.mark.parametrize("alignment", ["gap", "delta", "none", "hold"])
def test_kept_tokens_of_maps_that_keep_more_and_less(make_scan, alignment):
    arguments = make_scan(3, 4, D=3, N=1, paths="bidirectional", softplus=True)
    keep = torch.arange(24).view(2, 12) % torch.tensor([[2], [5]]) == 0
    found = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        floats = {
            name: arguments[name].to(dtype).requires_grad_()
            for name in ("x", "dt", "A", "B", "C", "D", "dt_bias")
        }
        y = aligned_scan(**arguments | floats, keep=keep, alignment=alignment, backend=backend)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(floats.values()))])
    for got, expected in zip(*found, strict=True):
        error = (got.double() - expected).abs().max()
        assert error <= 3e-5 * expected.square().mean().sqrt()


@pytest.mark.parametrize("rank", [3, 9], ids=["in the kernels", "by a product of matrices"])
def test_low_rank_steps_are_expanded(make_scan, check, rank):
    check(make_scan(2, 5, B=2, D=5, N=1, paths="single", rank=rank, softplus=True), "triton")


def test_sixteen_bit_inputs_give_a_float32_output(make_scan, run, check):
    arguments = make_scan(2, 5, B=2, D=3, N=1, paths="single")
    narrow = {name: arguments[name].bfloat16() for name in ("x", "dt", "B", "C")}
    got = run(arguments | narrow, backend="triton")
    assert got["y"].dtype == got["A"].dtype == torch.float32
    assert got["x"].dtype == got["dt"].dtype == got["B"].dtype == torch.bfloat16
    check(arguments | narrow, "triton")


def test_without_order_and_skip(make_scan, check):
    arguments = make_scan(1, 9, B=1, D=3, N=1, paths="single", skip=False)
    check(arguments | {"order": None}, "triton")


@pytest.mark.parametrize("name", ["x", "dt"])
def test_what_is_not_a_number_reaches_all_later_pixels_and_no_earlier_one(make_scan, name):
    arguments = make_scan(1, 18, B=2, D=2, N=1, paths="single")
    arguments[name][0, ..., 11, :] = float("nan")
    y = selective_scan(**arguments, backend="triton")
    assert y[0, :11].isfinite().all() and y[1].isfinite().all()
    assert not y[0, 11:].isfinite().any()


def test_steps_far_from_one_keep_the_precision_of_the_softplus(make_scan, check):
    arguments = make_scan(1, 9, B=1, D=3, N=1, paths="single", softplus=True)
    arguments["dt"] = torch.linspace(-14, 6, 27).reshape(1, 1, 9, 3)
    arguments["dt_bias"].zero_()
    check(arguments, "triton")


def test_empty_paths_give_zeros_and_no_gradient(make_scan, run):
    order = order_table("ss2d", 3, 3)[:, :0]
    for name, value in run(make_scan(3, 3, order=order, gaps=True), backend="triton").items():
        assert (value == 0).all(), name


def test_double_precision_goes_to_torch(make_scan):
    arguments = make_scan(2, 3, dtype=torch.float64)
    expected = selective_scan(**arguments, backend="torch")
    assert torch.equal(selective_scan(**arguments, backend="triton"), expected)


# opcheck looks at gradients of copies that it made itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_operators_keep_the_rules_of_torch(make_scan):
    arguments = make_scan(1, 3, B=1, D=2, N=1, paths="bidirectional", skip=False)
    inputs = [(arguments | {"merge": True}).get(field) for field in FIELDS]
    forward = torch.ops.cvmh.selective_scan_triton_fwd
    backward = torch.ops.cvmh.selective_scan_triton_bwd
    y, states = forward(*inputs, True)
    torch.library.opcheck(backward, (torch.ones_like(y), states, *inputs))
    for leaf in inputs[: len(FLOATS)]:
        if leaf is not None:
            leaf.requires_grad_()
    torch.library.opcheck(forward, (*inputs, True))
