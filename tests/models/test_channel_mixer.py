"""The channel mixer against loops over its equations, on maps of any size."""

import numpy as np
import pytest
import torch

from cvmh.models.channel_mixer import ChannelMixer

FORMS = ["positions", "grid"]


def make_mixer(form, channels=5, inner=6, *, dtype=torch.float64):
    torch.manual_seed(0)
    mixer = ChannelMixer(channels, inner=inner, form=form, features=3, grid=2, d_state=2)
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer.to(dtype)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def scan_series(w, series):
    """Gated bidirectional S6 of one series (steps, features), step by step."""
    features = w["conv.weight"].shape[0]
    lifted = series @ w["in_proj.weight"].T
    signal, gate = lifted[:, :features], lifted[:, features:]
    steps = len(series)
    convolved = np.zeros_like(signal)
    for t in range(steps):
        convolved[t] = w["conv.bias"]
        for offset in (-1, 0, 1):
            if 0 <= t + offset < steps:
                convolved[t] += w["conv.weight"][:, 0, 0, offset + 1] * signal[t + offset]
    u = convolved * sigmoid(convolved)
    rank, states = w["dt_weight"].shape[1], w["A_log"].shape[-1]
    total = np.zeros_like(u)
    for k, path in enumerate([range(steps), range(steps - 1, -1, -1)]):
        state = np.zeros((features, states))
        for t in path:
            projected = w["x_proj_weight"][k] @ u[t]
            low, b, c = np.split(projected, [rank, rank + states])
            delta = np.log1p(np.exp(w["dt_weight"][k].T @ low + w["dt_bias"][k]))
            state = np.exp(-delta[:, None] * np.exp(w["A_log"][k])) * state
            state += np.outer(delta * u[t], b)
            total[t] += state @ c + w["D"][k] * u[t]
    centred = total - total.mean(1, keepdims=True)
    normed = centred / np.sqrt(total.var(1, keepdims=True) + 1e-5)
    normed = normed * w["out_norm.weight"] + w["out_norm.bias"]
    return (normed * gate * sigmoid(gate)) @ w["out_proj.weight"].T


def cells_of(values, num_cells):
    """Mean over the rows of each cell; cells overlap where the rows do not divide."""
    size = len(values)
    bounds = [(i * size // num_cells, -(-(i + 1) * size // num_cells)) for i in range(num_cells)]
    return np.stack([values[low:high].mean(0) for low, high in bounds])


def stretched(cells, size):
    """Linear between the centres of cells, constant outside them, along the first axis."""
    at = (np.arange(size) + 0.5) * len(cells) / size - 0.5
    low = np.floor(at).astype(int)
    share = (at - low)[:, None, None]
    before, after = (cells[np.clip(i, 0, len(cells) - 1)] for i in (low, low + 1))
    return (1 - share) * before + share * after


def mix_by_loops(mixer, x_HWC):
    w = {key: value.numpy() for key, value in mixer.state_dict().items()}
    scan = {key.removeprefix("scan."): value for key, value in w.items() if "scan." in key}
    x = x_HWC @ w["widen.weight"].T
    height, width, inner = x.shape
    mixed = np.zeros_like(x)
    if mixer.form == "positions":
        for r in range(height):
            for c in range(width):
                mixed[r, c] = scan_series(scan, x[r, c][:, None])[:, 0]
        return mixed @ w["narrow.weight"].T
    cells = cells_of(cells_of(x, 2).transpose(1, 0, 2), 2).transpose(1, 0, 2)
    series = scan_series(scan, cells.reshape(4, inner).T).T.reshape(2, 2, inner)
    gate = stretched(stretched(series, height).transpose(1, 0, 2), width).transpose(1, 0, 2)
    return (x * sigmoid(gate)) @ w["narrow.weight"].T


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(3, 4), (5, 2), (1, 1)])
def test_it_equals_its_equations_in_float64(form, height, width):
    mixer = make_mixer(form)
    x = torch.randn(2, height, width, 5, dtype=torch.float64)
    with torch.no_grad():
        y = mixer(x)
        for image in range(2):
            expected = mix_by_loops(mixer, x[image].numpy())
            np.testing.assert_allclose(y[image], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_right_on_a_map_that_is_not_square(form):
    mixer = make_mixer(form, channels=3, inner=4)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mixer(x), (x, *mixer.parameters()), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_bf16_autocast_is_finite_and_keeps_the_shape(form):
    mixer = make_mixer(form, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(100 * torch.randn(2, 7, 4, 5))
    assert y.shape == (2, 7, 4, 5)
    assert y.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_it_can_be_compiled_as_one_graph(form):
    mixer = make_mixer(form, dtype=torch.float32)
    x = torch.randn(1, 3, 5, 5)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mixer(x))


def test_the_scalars_of_pixels_are_not_mixed_with_those_of_others():
    mixer = make_mixer("positions", dtype=torch.float32)
    x = torch.randn(1, 4, 5, 5)
    changed = x.clone()
    changed[0, 1, 2] += 1
    differs = (mixer(x) != mixer(changed)).any(-1)[0]
    assert differs.nonzero().tolist() == [[1, 2]]


def test_the_lift_of_a_scalar_is_not_silenced():
    mixer = ChannelMixer(8)
    torch.nn.init.trunc_normal_(mixer.scan.in_proj.weight, std=0.02)
    mixer.reset_lift()
    assert mixer.scan.in_proj.weight.abs().max() > 0.3
