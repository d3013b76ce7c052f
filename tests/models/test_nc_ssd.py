"""The NC-SSD mixer gives what its equations give, pixel by pixel in float64."""

import numpy as np
import pytest
import torch

from cvmh.models.nc_ssd import NCSSD

OPTIONS = {
    "published": {},
    "negative": {"is_positive": False},
    "normalised": {"is_normalised": True},
    "gated": {"is_gate_activated": True},
    "narrow": {"expand": 1.0, "num_heads": 1, "d_state": 5},
}


@pytest.fixture
def make_mixer():
    """Return a factory of mixers of 8 channels whose parameters are all drawn, in float64."""

    def make(**options):
        torch.manual_seed(0)
        mixer = NCSSD(8, **{"num_heads": 2, "d_state": 3} | options).double()
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.normal_()
        return mixer

    return make


def silu(x):
    return x / (1 + np.exp(-x))


def by_the_equations(mixer, x_HWC, *, is_positive=True, is_normalised=False, is_gated=False):
    """Return the result for one image, in loops."""
    weights = {name: value.numpy() for name, value in mixer.state_dict().items()}
    num_heads, inner = len(weights["D"]), weights["out_norm.weight"].size
    height, width, _ = x_HWC.shape
    pixels = [(row, column) for row in range(height) for column in range(width)]
    projected = x_HWC @ weights["in_proj.weight"].T
    gate, signal = projected[..., :inner], projected[..., inner:-num_heads]
    steps = np.log1p(np.exp(projected[..., -num_heads:] + weights["dt_bias"]))
    sizes = steps * np.exp(weights["A_log"])
    if is_normalised:
        sizes = sizes / sizes.sum(axis=(0, 1))

    convolved = np.zeros_like(signal) + weights["conv.bias"]
    for row, column in pixels:
        for i in range(3):
            for j in range(3):
                y, x = row + i - 1, column + j - 1
                if 0 <= y < height and 0 <= x < width:
                    convolved[row, column] += weights["conv.weight"][:, 0, i, j] * signal[y, x]
    convolved = silu(convolved)
    num_states = (signal.shape[-1] - inner) // 2
    values, B, C = np.split(convolved, [inner, inner + num_states], axis=-1)

    result = np.zeros((height, width, inner))
    for head in range(num_heads):
        channels = slice(head * inner // num_heads, (head + 1) * inner // num_heads)
        state = np.zeros((num_states, inner // num_heads))
        for pixel in pixels:
            weight = sizes[pixel][head] if is_positive else -sizes[pixel][head]
            state += weight * np.outer(B[pixel], values[pixel][channels])
        for pixel in pixels:
            skipped = weights["D"][head] * values[pixel][channels]
            result[(*pixel, channels)] = C[pixel] @ state + skipped
    centred = result - result.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    normed = normed * weights["out_norm.weight"] + weights["out_norm.bias"]
    return (normed * (silu(gate) if is_gated else gate)) @ weights["out_proj.weight"].T


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("size", [(3, 7), (1, 1), (6, 2)])
def test_it_gives_what_the_equations_give(make_mixer, name, size):
    mixer = make_mixer(**OPTIONS[name])
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    switches = {
        "is_positive": name != "negative",
        "is_normalised": name == "normalised",
        "is_gated": name == "gated",
    }
    expected = [by_the_equations(mixer, image.numpy(), **switches) for image in x]
    torch.testing.assert_close(
        mixer(x).detach(), torch.from_numpy(np.stack(expected)), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_right_on_a_map_that_is_not_square(make_mixer, name):
    mixer = make_mixer(**OPTIONS[name])
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in mixer.named_parameters()]

    def mix(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(mix, (x, *mixer.parameters()))


def test_results_grow_with_the_map_unless_weights_are_normalised(make_mixer):
    x = torch.randn(1, 4, 6, 8, dtype=torch.float64)
    for is_normalised in (False, True):
        mixer = make_mixer(is_normalised=is_normalised)
        # Nothing that sees neighbours: the same pixels twice differ by their number alone.
        with torch.no_grad():
            mixer.conv.weight[:] = 0
            mixer.conv.weight[:, :, 1, 1] = 1
        once, twice = mixer(x), mixer(torch.cat([x, x], dim=1))[:, :4]
        assert torch.allclose(once, twice) == is_normalised


def test_it_starts_with_steps_and_decays_of_mamba():
    torch.manual_seed(0)
    mixer = NCSSD(64, num_heads=64)
    steps = torch.nn.functional.softplus(mixer.dt_bias)
    assert 0.0009 < steps.min() < 0.002 < 0.05 < steps.max() < 0.11
    rates = mixer.A_log.exp()
    assert 1 <= rates.min() < 3 < 14 < rates.max() <= 16
    assert (mixer.D == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_mixer_in_sixteen_bit_is_near_the_one_in_32(dtype):
    torch.manual_seed(0)
    mixer = NCSSD(16, num_heads=2, d_state=8)
    x = torch.randn(1, 9, 14, 16)
    expected = mixer(x)
    with torch.autocast("cpu", dtype=dtype):
        inside = mixer(x)
    whole = mixer.to(dtype)(x.to(dtype))
    assert whole.dtype == dtype
    # Eight bits of fraction, through three projections.
    for other in (inside, whole):
        error = (other.float() - expected).square().mean().sqrt()
        assert error < 0.02 * expected.square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_sum_over_a_map_may_leave_the_range_of_16_bit(dtype):
    torch.manual_seed(0)
    mixer = NCSSD(16, num_heads=2, d_state=8)
    with torch.no_grad():
        # Of the sum, and so without effect behind its norm.
        mixer.D.fill_(6e4)
        x = 10 * torch.randn(1, 5, 7, 16)
        expected = mixer(x)
        computed = mixer.to(dtype)(x.to(dtype))
    assert computed.dtype == dtype
    assert (computed.float() - expected).abs().max() < 0.05 * expected.abs().max()
