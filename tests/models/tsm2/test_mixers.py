"""The mixers of TSM2 against loops over their equations, and what they may know of the future."""

import numpy as np
import pytest
import torch

from cvmh.models.tsm2 import TSM2, TSM2Settings
from cvmh.models.tsm2.mixers import SeriesNorm, TimeMixer, VariateMixer

SMALL = {"variates": 3, "width": 4, "d_state": 2, "expand": 1.5, "patch": 2, "dropout": 0}


def randomised(module):
    """Return a module in float64 whose every weight counts."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * drawn
    return module


def weights_of(module):
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalise(x, weight, bias):
    """Over all of an array at once."""
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


def scan_steps(w, series, *, offsets, paths):
    """A gated S6 of one series (steps, features): convolution, scans step by step, norm, gate."""
    steps, inner = len(series), w["conv.weight"].shape[0]
    lifted = series @ w["in_proj.weight"].T
    signal, gate = lifted[:, :inner], lifted[:, inner:]
    u = np.zeros_like(signal)
    for t in range(steps):
        u[t] = w["conv.bias"]
        for tap, offset in enumerate(offsets):
            if 0 <= t + offset < steps:
                u[t] += w["conv.weight"][:, 0, 0, tap] * signal[t + offset]
    u = u * sigmoid(u)
    rank, states = w["dt_weight"].shape[1], w["A_log"].shape[-1]
    total = np.zeros_like(u)
    for k, path in enumerate(paths):
        h = np.zeros((inner, states))
        for t in path:
            low, b, c = np.split(w["x_proj_weight"][k] @ u[t], [rank, rank + states])
            delta = np.log1p(np.exp(w["dt_weight"][k].T @ low + w["dt_bias"][k]))
            h = np.exp(-delta[:, None] * np.exp(w["A_log"][k])) * h + np.outer(delta * u[t], b)
            total[t] += h @ c + w["D"][k] * u[t]
    centred = total - total.mean(1, keepdims=True)
    normed = centred / np.sqrt(total.var(1, keepdims=True) + 1e-5)
    normed = normed * w["out_norm.weight"] + w["out_norm.bias"]
    return (normed * gate * sigmoid(gate)) @ w["out_proj.weight"].T


def mix_time(w, x_MLC):
    """Each variate by itself: a convolution over this step and three before, one scan forwards."""
    scan = {key.removeprefix("scan."): value for key, value in w.items()}
    x = normalise(x_MLC, w["norm.weight"], w["norm.bias"])
    steps = x.shape[1]
    return np.stack(
        [scan_steps(scan, row, offsets=(-3, -2, -1, 0), paths=[range(steps)]) for row in x]
    )


def mix_variates(w, x_MLC):
    """Each patch by itself: a convolution over neighbours, one scan forwards and one back."""
    scan = {key.removeprefix("scan."): value for key, value in w.items()}
    x = normalise(x_MLC, w["norm.weight"], w["norm.bias"])
    forwards = range(len(x))
    rows = [
        scan_steps(scan, x[:, t], offsets=(-1, 0, 1), paths=[forwards, forwards[::-1]])
        for t in range(x.shape[1])
    ]
    return np.stack(rows, axis=1)


def part_of(w, name):
    return {key.removeprefix(name): value for key, value in w.items() if key.startswith(name)}


def average(w, x_MLC, depth):
    """Pairs of mixers, each of which reads a weighted sum of all that came before it."""
    tokens, channels = [x_MLC], [x_MLC]
    for number in range(depth):
        read = sum(a * y for a, y in zip(w[f"alpha.{number}"], tokens, strict=True))
        read = read + sum(b * y for b, y in zip(w[f"beta.{number}"], channels, strict=True))
        tokens.append(mix_time(part_of(w, f"token_mixers.{number}."), read))
        read = sum(c * y for c, y in zip(w[f"theta.{number}"], tokens, strict=True))
        read = read + sum(g * y for g, y in zip(w[f"gamma.{number}"], channels, strict=True))
        channels.append(mix_variates(part_of(w, f"channel_mixers.{number}."), read))
    return channels[-1]


def embed(w, series_MT, static, patch):
    """Scale each series by what is known, and lay what is known of a patch side by side."""
    scaled = []
    for row in series_MT:
        known = row[~np.isnan(row)]
        deviation = known.std() if len(known) and known.std() > 0 else 1.0
        scaled.append((row - (known.mean() if len(known) else 0)) / deviation)
    own = (w["project_static.weight"] @ static + w["project_static.bias"]).reshape(-1, patch)
    num_patches = -(-series_MT.shape[1] // patch)
    missing = num_patches * patch - series_MT.shape[1]
    tokens = np.zeros((len(series_MT), num_patches, w["embed.weight"].shape[0]))
    for m, row in enumerate(scaled):
        row = np.concatenate([np.full(missing, np.nan), row])
        for number in range(num_patches):
            steps = row[number * patch : (number + 1) * patch]
            pairs = [(0.0, 0.0) if np.isnan(v) else (v, 1.0) for v in steps]
            held = np.concatenate([np.array(pairs).ravel(), own[m]])
            tokens[m, number] = w["embed.weight"] @ held + w["embed.bias"]
    return tokens


@pytest.mark.parametrize(
    ("mixer", "equations"), [(TimeMixer, mix_time), (VariateMixer, mix_variates)]
)
@pytest.mark.parametrize("size", [(3, 5), (1, 2), (4, 1)])
def test_a_mixer_equals_its_equations_in_float64(mixer, equations, size):
    mixer = randomised(mixer(TSM2Settings(**SMALL)))
    x = torch.randn(2, *size, 4, dtype=torch.float64)
    with torch.no_grad():
        found = mixer(x)
    for sample in range(2):
        expected = equations(weights_of(mixer), x[sample].numpy())
        np.testing.assert_allclose(found[sample], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [6, 7, 1])
def test_the_network_equals_its_equations_with_gaps_and_static_auxiliaries(steps):
    settings = TSM2Settings(**SMALL, depth=2, static=2)
    network = randomised(TSM2(settings))
    rng = np.random.default_rng(1)
    series, static = rng.normal(3, 2, (2, 3, steps)), rng.normal(size=(2, 2))
    series[rng.random(series.shape) < 0.2] = np.nan
    w = weights_of(network)
    with torch.no_grad():
        found = network(torch.tensor(series), torch.tensor(static)).map
    for sample in range(2):
        tokens = embed(w, series[sample], static[sample], settings.patch)
        mixed = average(part_of(w, "layers."), tokens, settings.depth)
        expected = normalise(mixed, w["norm.weight"], w["norm.bias"])
        np.testing.assert_allclose(found[sample], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mixer", [TimeMixer, VariateMixer])
def test_gradients_are_right(mixer):
    mixer = randomised(mixer(TSM2Settings(**SMALL)))
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mixer(x), (x, *mixer.parameters()), atol=1e-6)


class Nothing(torch.nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("changed", [1, 4, 9])
def test_time_goes_forwards_only(changed):
    mixer = randomised(TimeMixer(TSM2Settings(**SMALL)))
    # The norm sees the whole past on purpose.
    mixer.norm = Nothing()
    x = torch.randn(2, 3, 10, 4, dtype=torch.float64)
    other = x.clone()
    other[:, 1, changed] += 1
    with torch.no_grad():
        difference = (mixer(other) - mixer(x)).abs().amax(dim=(0, 3))
    assert not difference[:, :changed].any()
    assert (difference[1, changed:] > 0).all()
    # Variates do not meet here.
    assert not difference[[0, 2]].any()


def test_variates_meet_both_ways_and_times_do_not():
    mixer = randomised(VariateMixer(TSM2Settings(**SMALL)))
    mixer.norm = Nothing()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    other = x.clone()
    other[:, 1, 2] += 1
    with torch.no_grad():
        difference = (mixer(other) - mixer(x)).abs().amax(dim=(0, 3))
    assert (difference[:, 2] > 0).all()
    assert not difference[:, [0, 1, 3, 4]].any()


def test_the_norm_is_over_time_and_features_together():
    x = 3 + 2 * torch.randn(2, 3, 5, 4, dtype=torch.float64)
    y = SeriesNorm(4).double()(x)
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(
        y.var(dim=(1, 2, 3), correction=0), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-4
    )
    # Proportions stay: all parts of a sample get the same factor.
    slopes = (y[0] - y[0].mean()) / (x[0] - x[0].mean())
    torch.testing.assert_close(slopes, slopes[0, 0, 0].expand(3, 5, 4))
