"""Random scans to run, how far results may be off, and buffers that are poisoned meanwhile."""

import math

import pytest
import torch

from cvmh.ops import order_table, selective_scan

POISON = float("nan")
# Largest error in units of the rms of the tensor, by dtype of the tensor. float32: a path of a
# hundred steps rounds to some 1e-6; dt and A collect products of states and adjoints, whose
# errors do not average out. 16-bit: half a unit in the last place of a value of sixteen rms, since
# products of normal values have long tails.
TOLERANCES = {
    torch.float64: {"default": 1e-12},
    torch.float32: {"default": 1e-5, "dt": 3e-5, "decay_dt": 3e-5, "A": 3e-5},
    torch.float16: {"default": 16 * 2**-12},
    torch.bfloat16: {"default": 16 * 2**-9},
}


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch):
    """Fill what torch hands out uninitialised with NaN, so that an unwritten cell is found."""
    # Torch remembers once which functions a default device is for; it must be the real ones.
    with torch.device("cpu"):
        torch.empty(0)

    def poisoned(make):
        def make_and_fill(*args, **kwargs):
            result = make(*args, **kwargs)
            return result.fill_(POISON) if result.is_floating_point() else result

        return make_and_fill

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


@pytest.fixture
def make_scan():
    """Return a factory of the arguments of a scan, all values drawn from one seed."""

    def make(
        height=5,
        width=7,
        *,
        B=2,
        D=8,
        N=2,
        paths="cs2d",
        order=None,
        rank=None,
        softplus=False,
        gaps=False,
        ready=False,
        skip=True,
        seed=0,
        dtype=torch.float32,
    ):
        generator = torch.Generator().manual_seed(seed)
        order = order_table(paths, height, width) if order is None else order
        K, L = order.shape[-2], height * width
        columns = D if rank is None else rank

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        def uniform(low, high, *shape):
            random = torch.rand(*shape, generator=generator, dtype=torch.float64)
            return low + (high - low) * random

        # Slices of one projection, as a model passes them: strided and not contiguous.
        projected = normal(B, K, L, 2 * N + 1).to(dtype)
        floats = {
            "x": normal(B, L, D),
            "A": -torch.arange(1, N + 1) * uniform(0.7, 1.3, K, D, N),
            "B": projected[..., 1 : N + 1],
            "C": projected[..., N + 1 :],
        }
        if softplus:
            floats["dt"] = normal(B, K, L, columns)
            floats["dt_bias"] = uniform(-5, -2, K, D)
        else:
            floats["dt"] = uniform(
                math.log(1e-3), math.log(1e-1), B, K, L, D if rank is None else rank
            ).exp()
        if rank is not None:
            floats["dt_weight"] = uniform(0.1, 1, K, rank, D) / rank
        if skip:
            floats["D"] = normal(K, D)
        others = {"order": order, "dt_softplus": softplus}
        if gaps:
            floats["gap_dt"] = uniform(1e-3, 1e-1, K, D)
            others["gap"] = torch.randint(0, 4, order.shape, generator=generator).int()
        if ready:
            floats["decay_dt"] = uniform(1e-3, 1e-1, B, K, L, D)
        return {name: value.to(dtype) for name, value in floats.items()} | others

    return make


@pytest.fixture
def run():
    """Return a function that gives the output of a scan and all gradients, by name."""

    def run(arguments, *, backend, dtype=None, merge=True):
        scan = dict(arguments)
        leaves = {}
        for name, value in arguments.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                # detach keeps the strides of a slice; a change of dtype would not.
                leaf = value.detach() if dtype is None else value.detach().to(dtype)
                scan[name] = leaves[name] = leaf.requires_grad_()
        y = selective_scan(**scan, backend=backend, merge=merge)
        generator = torch.Generator().manual_seed(99)
        upstream = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
        gradients = torch.autograd.grad(y, list(leaves.values()), upstream)
        return {"y": y.detach()} | dict(zip(leaves, gradients, strict=True))

    return run


@pytest.fixture
def check(run, assert_close):
    """Return a function that holds a backend to the reference in float64."""

    def check(arguments, backend, **options):
        expected = run(arguments, backend="reference", dtype=torch.float64, **options)
        assert_close(run(arguments, backend=backend, **options), expected)

    return check


@pytest.fixture
def assert_close():
    """Return a function that compares results with those of float64, tensors by name."""

    def assert_close(got, expected):
        assert got.keys() == expected.keys()
        for name, value in got.items():
            wanted = expected[name]
            assert value.shape == wanted.shape, name
            table = TOLERANCES[value.dtype]
            error = (value.double() - wanted.double()).abs().max()
            rms = wanted.double().square().mean().sqrt()
            assert error <= table.get(name, table["default"]) * rms, (
                f"{name}: {error / rms:.2e} rms"
            )

    return assert_close
