"""Non-causal state space duality gives what a loop over pixels gives, on maps of any size."""

import io
import math

import pytest
import torch
from torch import nn

from cvmh.errors import KernelError, ShapeError
from cvmh.ops import nc_ssd

OPTIONS = {
    "published": {"dt_softplus": True},
    "plain": {},
    "negative": {"positive": False},
    "normalised": {"dt_softplus": True, "normalise": True},
}


def in_a_loop(arguments):
    """Return the result in float64, pixel by pixel and head by head."""
    values = {
        name: value.detach().double() if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }
    x, dt, A, B, C = (values[name] for name in ("x", "dt", "A", "B", "C"))
    (num_batch, length, num_channels), num_heads = x.shape, len(A)
    width = num_channels // num_heads
    y = torch.zeros_like(x)
    for image in range(num_batch):
        for head in range(num_heads):
            channels = slice(head * width, (head + 1) * width)
            weights = []
            for pixel in range(length):
                step = float(dt[image, pixel, head] + values["dt_bias"][head])
                step = math.log1p(math.exp(step)) if values.get("dt_softplus") else step
                weights.append(step * float(A[head]) * (-1 if values.get("positive", True) else 1))
            total = sum(map(abs, weights)) if values.get("normalise") else 1
            state = torch.zeros(B.shape[-1], width, dtype=torch.float64)
            for pixel, weight in enumerate(weights):
                state += weight / total * torch.outer(B[image, pixel], x[image, pixel, channels])
            for pixel in range(length):
                y[image, pixel, channels] = C[image, pixel] @ state
            y[image, :, channels] += values["D"][head] * x[image, :, channels]
    return y


@pytest.fixture
def make_mixer():
    """Return a factory of the arguments, all values drawn from one seed."""

    def make(length=35, *, B=2, H=2, P=4, N=3, dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        # Slices of one projection, as a model passes them.
        weights = normal(B, length, 2 * N)
        return {
            "x": normal(B, length, H * P),
            "dt": normal(B, length, H),
            "A": -normal(H).exp(),
            "B": weights[..., :N],
            "C": weights[..., N:],
            "D": normal(H),
            "dt_bias": normal(H),
        }

    return make


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("length", [1, 2, 35, 100])
def test_it_is_a_sum_over_all_pixels_that_each_pixel_reads(
    make_mixer, assert_close, options, length
):
    arguments = make_mixer(length) | OPTIONS[options]
    assert_close({"y": nc_ssd(**arguments)}, {"y": in_a_loop(arguments)})


@pytest.mark.parametrize("H, P, N", [(1, 5, 1), (3, 1, 4), (4, 8, 16)])
def test_any_number_of_heads_channels_and_states(make_mixer, assert_close, H, P, N):
    arguments = make_mixer(H=H, P=P, N=N)
    assert_close({"y": nc_ssd(**arguments)}, {"y": in_a_loop(arguments)})


def test_bias_and_skip_may_be_left_out(make_mixer):
    arguments = make_mixer(dtype=torch.float64)
    zeros = {name: torch.zeros_like(arguments.pop(name)) for name in ("D", "dt_bias")}
    assert torch.allclose(nc_ssd(**arguments), nc_ssd(**arguments, **zeros), rtol=1e-13)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_pass_gradcheck(make_mixer, options):
    arguments = make_mixer(6, B=1, P=2, N=2, dtype=torch.float64)
    leaves = [value.clone().requires_grad_() for value in arguments.values()]

    def mix(*values):
        return nc_ssd(**dict(zip(arguments, values, strict=True)), **OPTIONS[options])

    assert torch.autograd.gradcheck(mix, leaves)
    assert torch.autograd.gradgradcheck(mix, leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bit_inputs_give_a_float32_output(make_mixer, assert_close, dtype):
    arguments = make_mixer(dtype=dtype) | {"dt_softplus": True}
    x = arguments["x"].requires_grad_()
    y = nc_ssd(**arguments)
    assert y.dtype == torch.float32
    assert_close({"y": y.detach()}, {"y": in_a_loop(arguments)})
    y.sum().backward()
    assert x.grad.dtype == dtype


def test_half_precision_does_not_overflow_on_large_maps(make_mixer):
    arguments = make_mixer(5000, dtype=torch.float16)
    arguments["x"] = torch.full_like(arguments["x"], 1000)
    arguments["B"] = torch.ones_like(arguments["B"])
    assert nc_ssd(**arguments, dt_softplus=True).isfinite().all()


def test_autocast_changes_nothing(make_mixer):
    arguments = make_mixer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nc_ssd(**arguments)
    assert torch.equal(inside, nc_ssd(**arguments))


def test_the_order_of_the_pixels_does_not_matter(make_mixer):
    arguments = make_mixer(dtype=torch.float64) | {"dt_softplus": True}
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    shuffled = {name: arguments[name][:, order] for name in ("x", "dt", "B", "C")}
    assert torch.allclose(nc_ssd(**arguments | shuffled), nc_ssd(**arguments)[:, order], rtol=1e-11)


def test_normalised_weights_do_not_grow_with_the_map(make_mixer):
    arguments = make_mixer(dtype=torch.float64) | {"dt_softplus": True, "normalise": True}
    twice = {name: arguments[name].repeat(1, 2, 1) for name in ("x", "dt", "B", "C")}
    once = nc_ssd(**arguments)
    assert torch.allclose(nc_ssd(**arguments | twice)[:, :35], once, rtol=1e-11)
    nothing = arguments | {"dt_softplus": False, "dt_bias": None}
    nothing["dt"] = torch.zeros_like(nothing["dt"])
    assert nc_ssd(**nothing).isfinite().all()


def test_what_does_not_fit_is_named(make_mixer):
    arguments = make_mixer()
    with pytest.raises(ShapeError, match=r"dt must be \(B=2, L=35, H=any\), got \(2, 9, 2\); giv"):
        nc_ssd(**arguments | {"dt": arguments["dt"][:, :9]})
    with pytest.raises(ShapeError, match="D=8 must be a multiple of H=3; given: x"):
        three = {"dt": torch.ones(2, 35, 3), "A": -torch.ones(3), "D": None, "dt_bias": None}
        nc_ssd(**arguments | three)
    with pytest.raises(ShapeError, match="C must be a floating-point tensor, got"):
        nc_ssd(**arguments | {"C": arguments["C"].long()})
    with pytest.raises(ShapeError, match="B must be on the device of x, cpu, got meta"):
        nc_ssd(**arguments | {"B": arguments["B"].to("meta")})
    with pytest.raises(KernelError, match="A must be negative, got a maximum of"):
        nc_ssd(**arguments | {"A": -arguments["A"]})


class Mixer(nn.Module):
    """The operator with its parameters."""

    def __init__(self, arguments):
        super().__init__()
        for name in ("A", "D", "dt_bias"):
            self.register_parameter(name, nn.Parameter(arguments[name]))

    def forward(self, x, dt, B, C):
        return nc_ssd(x, dt, self.A, B, C, self.D, dt_bias=self.dt_bias, dt_softplus=True)


def test_it_compiles_and_exports_for_any_size(make_mixer, assert_close):
    names = ("x", "dt", "B", "C")
    mixer = Mixer(make_mixer()).eval()
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    sizes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    inputs = [make_mixer()[name] for name in names]
    program = torch.export.export(mixer, tuple(inputs), dynamic_shapes=(sizes,) * 4)
    for num_batch, length in ((2, 35), (1, 64), (3, 7)):
        inputs = [make_mixer(length, B=num_batch)[name] for name in names]
        for other in (compiled, program.module()):
            assert_close({"y": other(*inputs).detach()}, {"y": mixer(*inputs).detach()})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_takes_it_for_any_size(make_mixer, assert_close):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    names = ("x", "dt", "B", "C")
    mixer = Mixer(make_mixer()).eval()
    inputs = tuple(make_mixer()[name].contiguous() for name in names)
    sizes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    exported = torch.onnx.export(
        mixer, inputs, dynamic_shapes=(sizes,) * 4, dynamo=True, verbose=False
    )
    file = io.BytesIO()
    exported.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    arguments = make_mixer(101, B=3)
    given = {name: arguments[name].contiguous().numpy() for name in names}
    named = zip((one.name for one in session.get_inputs()), given.values(), strict=True)
    y = torch.from_numpy(session.run(None, dict(named))[0])
    arguments |= dict(mixer.named_parameters())
    assert_close({"y": y}, {"y": in_a_loop(arguments | {"dt_softplus": True})})
