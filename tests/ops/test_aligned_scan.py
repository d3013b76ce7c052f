"""Scans over kept tokens give what loops over all tokens give, written from the equations."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cvmh.errors import ConfigError, KernelError, ShapeError
from cvmh.ops import aligned_scan, kept_tables, selective_scan

ALIGNMENTS = ["gap", "delta", "none", "hold"]
MAPS = ("y", "x", "dt", "B", "C")


def loop(arguments, keep, alignment):
    """Scan all tokens of all paths one by one; what a dropped one does is what is asked."""
    raw, bias = arguments["dt"], arguments["dt_bias"]
    if "dt_weight" in arguments:
        raw = torch.einsum("bklr,krd->bkld", raw, arguments["dt_weight"])
    dt, zero = functional.softplus(raw + bias[:, None]), functional.softplus(bias)
    x, A, D = arguments["x"], arguments["A"], arguments["D"]
    images = []
    for image in range(len(x)):
        # Of x, so that there is a gradient where nothing is kept.
        rows = [0 * x[image, token] for token in range(x.shape[1])]
        for path, tokens in enumerate(arguments["order"].tolist()):
            state, interval = torch.zeros_like(A[path]), 0
            for token in tokens:
                if keep[image, token]:
                    step = held = dt[image, path, token]
                    if alignment == "hold":
                        step = held = step + interval * zero[path]
                    B, C = arguments["B"][image, path, token], arguments["C"][image, path, token]
                    new = (held * x[image, token])[:, None] * B
                    state = torch.exp(step[:, None] * A[path]) * state + new
                    rows[token] = rows[token] + state @ C + D[path] * x[image, token]
                    interval = 0
                    continue
                interval += 1
                if alignment == "gap":
                    state = torch.exp(zero[path][:, None] * A[path]) * state
                elif alignment == "delta":
                    state = torch.exp(dt[image, path, token][:, None] * A[path]) * state
        images.append(torch.stack(rows))
    return torch.stack(images)


def results_of(scan, arguments, keep, alignment, dtype=torch.float64):
    """Return the output of a scan and all gradients, by name."""
    floats = {
        name: value.detach().to(dtype).requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    y = scan(arguments | floats, keep, alignment)
    generator = torch.Generator().manual_seed(7)
    upstream = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    names, leaves = list(floats), list(floats.values())
    gradients = torch.autograd.grad(y, leaves, upstream, allow_unused=True)
    zeros = map(torch.zeros_like, leaves)
    found = [zero if one is None else one for one, zero in zip(gradients, zeros, strict=True)]
    return {"y": y.detach()} | dict(zip(names, found, strict=True))


def scan_on(backend, **options):
    def scan(arguments, keep, alignment):
        return aligned_scan(**arguments, keep=keep, alignment=alignment, backend=backend, **options)

    return scan


def mask(*shares, length, seed=3):
    """Draw which tokens of each map are kept."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.rand(length, generator=generator) < share for share in shares])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("paths", ["ss2d", "cs2d", "snake"])
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_in_double_precision_output_and_gradients_are_those_of_the_loop(
    make_scan, assert_close, backend, paths, alignment
):
    arguments = make_scan(5, 7, D=3, paths=paths, softplus=True, dtype=torch.float64)
    keep = mask(0.3, 0.7, length=35)
    expected = results_of(loop, arguments, keep, alignment)
    assert_close(results_of(scan_on(backend), arguments, keep, alignment), expected)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("N", [1, 3])
def test_in_single_precision_too_with_low_rank_steps(
    make_scan, assert_close, backend, N, alignment
):
    arguments = make_scan(5, 7, D=20, N=N, rank=2, softplus=True)
    keep = mask(0.3, 0.7, length=35)
    expected = results_of(loop, arguments, keep, alignment)
    got = results_of(scan_on(backend), arguments, keep, alignment, torch.float32)
    assert all(value.dtype == torch.float32 for value in got.values())
    assert_close(got, expected)


# What the fixtures give does not change from map to map.
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), alignment=st.sampled_from(ALIGNMENTS))
def test_any_mask_on_any_map(make_scan, assert_close, data, alignment):
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    length = height * width
    kept = data.draw(st.lists(st.booleans(), min_size=2 * length, max_size=2 * length))
    paths = data.draw(st.sampled_from(["ss2d", "cs2d", "snake", "single"]))
    size = data.draw(st.sampled_from([None, length]))
    arguments = make_scan(height, width, D=2, paths=paths, softplus=True, dtype=torch.float64)
    keep = torch.tensor(kept).view(2, length)
    expected = results_of(loop, arguments, keep, alignment)
    assert_close(results_of(scan_on("torch", size=size), arguments, keep, alignment), expected)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backend", ["reference", "torch", "numba"])
def test_one_kept_token_none_and_all(make_scan, assert_close, backend, alignment):
    arguments = make_scan(3, 5, B=3, D=4, softplus=True)
    keep = torch.zeros(3, 15, dtype=torch.bool)
    keep[0, 7], keep[2] = True, True
    expected = results_of(loop, arguments, keep, alignment)
    got = results_of(scan_on(backend), arguments, keep, alignment, torch.float32)
    assert_close(got, expected)
    assert all((got[name][1] == 0).all() for name in MAPS)

    nothing = torch.zeros_like(keep)
    assert not aligned_scan(**arguments, keep=nothing, alignment=alignment, backend=backend).any()
    everything = aligned_scan(**arguments, keep=~nothing, alignment=alignment, backend=backend)
    dense = selective_scan(**arguments, backend=backend)
    assert torch.allclose(everything, dense, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_maps_of_a_batch_are_bit_for_bit_what_they_are_alone(make_scan, backend, alignment):
    dtype = torch.float32
    arguments = make_scan(9, 8, B=3, D=6, paths="snake", softplus=True)
    keep = mask(0.2, 0.9, 0.5, length=72)
    together = results_of(scan_on(backend), arguments, keep, alignment, dtype)
    upstream = torch.Generator().manual_seed(7)
    dy = torch.randn(together["y"].shape, generator=upstream, dtype=torch.float64).float()
    for image in range(3):
        alone = arguments | {
            name: arguments[name][image : image + 1].detach().requires_grad_() for name in MAPS[1:]
        }
        y = scan_on(backend)(alone, keep[image : image + 1], alignment)
        gradients = torch.autograd.grad(
            y, [alone[name] for name in MAPS[1:]], dy[image : image + 1]
        )
        for name, value in zip(MAPS, (y, *gradients), strict=True):
            assert torch.equal(value[0], together[name][image]), name


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_unmerged_paths_add_up_to_the_merged_ones(make_scan, alignment):
    arguments = make_scan(softplus=True, dtype=torch.float64)
    keep = mask(0.5, 0.4, length=35)
    merged, apart = (
        aligned_scan(**arguments, keep=keep, alignment=alignment, merge=merge, backend="torch")
        for merge in (True, False)
    )
    assert apart.shape == (2, 4, 35, 8)
    assert torch.allclose(apart.sum(dim=1), merged, rtol=1e-12, atol=1e-12)


def test_holding_the_state_over_dropped_tokens_is_closing_ranks(make_scan):
    arguments = make_scan(softplus=False, dtype=torch.float64)
    keep = mask(0.5, 0.4, length=35)
    # A dropped token with neither step nor input leaves the state as it is.
    held = arguments | {
        "x": arguments["x"] * keep[..., None],
        "dt": arguments["dt"] * keep[:, None, :, None],
    }
    expected = selective_scan(**held, backend="reference") * keep[..., None]
    got = aligned_scan(**arguments, keep=keep, alignment="none", backend="torch")
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_true_steps_of_dropped_tokens_are_summed_over_each_gap(make_scan):
    arguments = make_scan(softplus=False, dtype=torch.float64)
    keep = mask(0.5, 0.4, length=35)
    order = arguments["order"]
    summed = torch.zeros_like(arguments["dt"])
    for image, path in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        total = torch.zeros(8, dtype=torch.float64)
        for token in order[path].tolist():
            total = total + arguments["dt"][image, path, token]
            if keep[image, token]:
                summed[image, path, token], total = total, torch.zeros_like(total)
    tables = kept_tables(order, keep, place=torch.arange(35).expand(2, -1))
    compact = arguments | {"order": tables.order, "decay_dt": summed}
    expected = selective_scan(**compact, backend="reference")
    got = aligned_scan(**arguments, keep=keep, alignment="delta", backend="torch")
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_maps_that_hold_kept_tokens_alone_need_only_their_tables(make_scan, backend):
    arguments = make_scan(softplus=True)
    keep = torch.stack([torch.arange(35) % 3 == 0, torch.arange(35) % 3 == 1])
    expected = aligned_scan(**arguments, keep=keep, backend=backend)
    tables = kept_tables(arguments["order"], keep)
    compact = {name: arguments[name].movedim(-2, 1)[keep] for name in ("x", "dt", "B", "C")}
    compact = {name: value.view(2, 12, *value.shape[1:]) for name, value in compact.items()}
    compact = {
        name: value if name == "x" else value.movedim(1, 2) for name, value in compact.items()
    }
    gap_dt = functional.softplus(arguments["dt_bias"])
    compact |= {"order": tables.order, "gap": tables.gap, "gap_dt": gap_dt}
    got = selective_scan(**arguments | compact, backend=backend)
    assert torch.allclose(got, expected[keep].view(2, 12, -1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("alignment", ["gap", "none", "hold"])
@pytest.mark.parametrize("backend", ["reference", "torch", "numba"])
def test_what_dropped_tokens_hold_is_not_read(make_scan, backend, alignment):
    arguments = make_scan(softplus=True)
    keep = mask(0.5, 0.4, length=35)
    scan = scan_on(backend)
    expected = scan(arguments, keep, alignment)
    x = arguments["x"].masked_fill(~keep[..., None], float("nan"))
    dt = arguments["dt"].masked_fill(~keep[:, None, :, None], float("nan"))
    assert torch.equal(scan(arguments | {"x": x, "dt": dt}, keep, alignment), expected)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_without_bias_the_step_of_a_zero_token_is_that_of_its_softplus(make_scan, alignment):
    arguments = make_scan(softplus=True, dtype=torch.float64)
    keep = mask(0.5, 0.4, length=35)
    zero = arguments | {"dt_bias": torch.zeros_like(arguments["dt_bias"])}
    expected = loop(zero, keep, alignment)
    del zero["dt_bias"]
    got = aligned_scan(**zero, keep=keep, alignment=alignment, backend="torch")
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_autocast_and_sixteen_bit_inputs_change_no_more_than_inputs(make_scan, alignment):
    arguments = make_scan(softplus=True, rank=2)
    keep = mask(0.5, 0.4, length=35)
    narrow = {name: arguments[name].bfloat16() for name in ("x", "dt", "B", "C")}
    wide = {name: value.float() for name, value in narrow.items()}
    expected = scan_on("numba")(arguments | wide, keep, alignment)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = scan_on("numba")(arguments | narrow, keep, alignment)
    assert got.dtype == torch.float32
    assert torch.allclose(got, expected, rtol=1e-6, atol=1e-6)


# torch's own code, at every export.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_onnx_gets_is_the_same(make_scan, assert_close):
    arguments = make_scan(3, 5, D=3, softplus=True)
    keep = mask(0.3, 0.7, length=15)
    got = scan_on("export", size=15)(arguments, keep, "gap")
    assert_close({"y": got}, {"y": loop(arguments, keep, "gap").double()})


def test_what_does_not_fit_is_refused(make_scan):
    arguments = make_scan()
    keep = torch.ones(2, 35, dtype=torch.bool)
    with pytest.raises(ConfigError, match="one of gap, delta, none, hold, got 'naive'"):
        aligned_scan(**arguments, keep=keep, alignment="naive")
    for wrong in (keep[0], keep[:, :30], keep.float()):
        with pytest.raises(ShapeError, match=r"keep must be a boolean \(2, 35\), got .*; given: x"):
            aligned_scan(**arguments, keep=wrong)
    with pytest.raises(ShapeError, match=r"order must be \(K, L\), keep a boolean"):
        aligned_scan(**arguments | {"order": arguments["order"][:, :30]}, keep=keep)
    with pytest.raises(KernelError, match="A must be negative"):
        aligned_scan(**arguments | {"A": -arguments["A"]}, keep=keep)
