"""PlainMamba: its figures, its equations in NumPy, its published names, and dense use."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn import functional

from cvmh.errors import ConfigError
from cvmh.models.encoders import create_encoder
from cvmh.models.encoders.plainmamba import PLAINMAMBA
from cvmh.models.ss2d import SS2D
from cvmh.models.weights.plainmamba import PLAINMAMBA_LAYOUT

WIDTH, DEPTH, GRID = 16, 5, 2
TINY = {"width": WIDTH, "depth": DEPTH, "grid": GRID, "drop_path": 0.0}
PLAIN = {"pyramid": False, "out_indices": (3,)}
# What the released code does, and what the paper says.
FORMS = {
    "released": {"reorder_parameters": False, "double_dt_bias": True},
    "paper": {"reorder_parameters": True, "double_dt_bias": False},
}


def make_tiny(**settings):
    torch.manual_seed(0)
    return create_encoder("plainmamba_l1", **{**TINY, **settings}).eval()


def inside(weights):
    """Return the tensors of the backbone without prefix."""
    start = "backbone."
    return {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}


@pytest.fixture
def tiny_weights(published_weights, equations):
    """Return random published weights of the tiny network, under their names without prefix."""
    return inside(equations.draw(published_weights.plainmamba_of(WIDTH, DEPTH, 1, True, grid=GRID)))


@pytest.mark.parametrize("name", PLAINMAMBA.variants)
def test_parameters_are_counted_as_in_the_released_code(name, published_weights):
    published = PLAINMAMBA.variants[name].published.parameters
    with torch.device("meta"):
        classifier = PLAINMAMBA.classifier(create_encoder(name, **PLAIN))
    shapes = published_weights.plainmamba(name)
    is_learned = [not key.rpartition(".")[2].startswith(("running", "num")) for key in shapes]
    assert sum(p.numel() for p in classifier.parameters()) == published
    assert len(classifier.state_dict()) == len(shapes)
    sizes = [np.prod(shape) for shape in shapes.values()]
    assert np.dot(sizes, is_learned) == published


@pytest.mark.parametrize("name", PLAINMAMBA.variants)
def test_every_published_tensor_has_its_place(name, published_weights, take_over):
    with torch.device("meta"):
        expected = create_encoder(name, **PLAIN).state_dict()
        shapes = inside(published_weights.plainmamba(name))
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
        taken = take_over(PLAINMAMBA_LAYOUT, weights)
    assert PLAINMAMBA_LAYOUT.detect(weights) == name
    assert {k: t.shape for k, t in taken.items()} == {k: t.shape for k, t in expected.items()}


def test_weights_of_unknown_sizes_are_of_no_variant(published_weights):
    shapes = inside(published_weights.plainmamba_of(192, 23, 1, True))
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert PLAINMAMBA_LAYOUT.detect(weights) is None
    assert PLAINMAMBA_LAYOUT.detect({}) is None


def snakes(height, width):
    """Return the four snakes as lists of pixels."""
    rows = [(r, c if r % 2 == 0 else width - 1 - c) for r in range(height) for c in range(width)]
    columns = [
        (r if c % 2 == 0 else height - 1 - r, c) for c in range(width) for r in range(height)
    ]
    return [rows, rows[::-1], columns, columns[::-1]]


WAYS = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}


def ways(path):
    """Return how a path came to each pixel: 0 start, 1 right, 2 left, 3 up, 4 down."""
    steps = pairwise(path)
    return [0] + [WAYS[r1 - r0, c1 - c0] for (r0, c0), (r1, c1) in steps]


def mix(n, w, start, x, form):
    """The mixer's equations over a map (H, W, C), step by step."""
    height, width, _ = x.shape
    a, z = np.split(n.linear(x, w, f"{start}.in_proj"), 2, axis=-1)
    a = n.silu(n.conv(a, w, f"{start}.conv2d", padding=3, is_depthwise=True))
    table = w[f"{start}.direction_Bs"]
    num_states, rank = table.shape[1], w[f"{start}.dt_proj.weight"].shape[1]
    A, skip = -np.exp(w[f"{start}.A_log"]), w[f"{start}.D"]
    bias = w[f"{start}.dt_proj.bias"] * (2 if form["double_dt_bias"] else 1)
    raster = [(r, c) for r in range(height) for c in range(width)]
    merged = np.zeros(a.shape)
    for path in snakes(height, width):
        state = np.zeros(A.shape)
        for t, (pixel, way) in enumerate(zip(path, ways(path), strict=True)):
            giver = pixel if form["reorder_parameters"] else raster[t]
            low, into, out = np.split(
                w[f"{start}.x_proj.weight"] @ a[giver], [rank, rank + num_states]
            )
            delta = np.logaddexp(0, w[f"{start}.dt_proj.weight"] @ low + bias)[:, None]
            state = np.exp(delta * A) * state + delta * (into + table[way]) * a[pixel][:, None]
            merged[pixel] += state @ out + skip * a[pixel]
    return n.linear(merged * n.silu(z), w, f"{start}.out_proj")


def cubic(distance):
    """The cubic convolution kernel with a = -3/4."""
    t = abs(distance)
    if t <= 1:
        return 1.25 * t**3 - 2.25 * t**2 + 1
    return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def stretch(table, size):
    """Resize the first axis by cubic convolution between the centres of pixels."""
    result = np.zeros((size, *table.shape[1:]))
    for i in range(size):
        at = (i + 0.5) * len(table) / size - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            result[i] += cubic(at - j) * table[min(max(j, 0), len(table) - 1)]
    return result


def run(n, w, image, form):
    """Compute the normed last map of an image (H, W, bands), as the classifier reads it."""
    x = n.conv(image, w, "patch_embed.stem.0", stride=2, padding=3)
    x = n.relu(n.batch_norm(x, w, "patch_embed.stem.1"))
    x = n.conv(x, w, "patch_embed.convs.0", padding=1)
    x = n.relu(n.batch_norm(x, w, "patch_embed.convs.1"))
    x = np.pad(x, ((0, -x.shape[0] % 8), (0, -x.shape[1] % 8), (0, 0)))
    x = n.conv(x, w, "patch_embed.projection", stride=8)
    table = w["pos_embed"].reshape(GRID, GRID, WIDTH)
    if x.shape[:2] != (GRID, GRID):
        across = stretch(stretch(table, x.shape[0]).swapaxes(0, 1), x.shape[1])
        table = across.swapaxes(0, 1)
    x = x + table
    for layer in range(DEPTH):
        normed = n.layer_norm(x, w, f"layers.{layer}.norm")
        x = x + mix(n, w, f"layers.{layer}.mamba", normed, form)
        if layer == 0:
            x = n.conv(x, w, "layers.0.dw.0", padding=1, is_depthwise=True)
            x = n.gelu(n.batch_norm(x, w, "layers.0.dw.1"))
    return n.layer_norm(x, w, "ln1", eps=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_mixer_equals_its_equations_in_float64(form, tiny_weights, equations, take_over):
    mixer = make_tiny(**FORMS[form]).layers[1].mixer.double()
    names = {"layers.1.mixer." + key for key in mixer.state_dict()}
    taken = take_over(PLAINMAMBA_LAYOUT, tiny_weights)
    mixer.load_state_dict({k.removeprefix("layers.1.mixer."): taken[k] for k in names})
    for height, width in [(3, 4), (4, 3), (1, 5), (1, 1)]:
        x = np.random.default_rng(height).normal(size=(height, width, WIDTH))
        with torch.no_grad():
            computed = mixer(torch.from_numpy(x)[None])[0].numpy()
        expected = mix(equations, tiny_weights, "layers.1.mamba", x, FORMS[form])
        np.testing.assert_allclose(computed, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(33, 47), (32, 32), (20, 50)], ids=str)
def test_published_weights_give_what_the_equations_give(size, tiny_weights, equations, take_over):
    encoder = make_tiny(**PLAIN).double()
    encoder.load_state_dict(take_over(PLAINMAMBA_LAYOUT, tiny_weights))
    image = np.random.default_rng(1).normal(size=(*size, 3))
    expected = run(equations, tiny_weights, image, FORMS["released"])
    with torch.no_grad():
        computed = encoder(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(computed[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_right_on_maps_that_are_not_square(form):
    block = make_tiny(width=4, **FORMS[form]).layers[0].double()
    names, parameters = zip(*block.named_parameters(), strict=True)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def call(x, *values):
        return functional_call(block, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(call, (x, *parameters), fast_mode=True)


def test_gradients_of_the_network_are_right_on_an_image_that_is_not_square():
    encoder = make_tiny(width=4, depth=4).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 3, 20, 34, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda x, p: sum(m.sin().sum() for m in encoder(x)), (x, encoder.position), fast_mode=True
    )


@pytest.mark.parametrize("size", [(33, 47), (65, 97), (250, 230), (1, 1)], ids=str)
def test_any_size_gives_maps_rounded_up(size):
    with torch.no_grad():
        maps = make_tiny()(torch.randn(1, 3, *size))
        plain = make_tiny(pyramid=False)(torch.randn(1, 3, *size))
    expected = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(m.shape[2:]) for m in maps] == expected
    assert [m.shape[1] for m in maps] == [WIDTH // 4, WIDTH // 2, WIDTH, WIDTH]
    assert [tuple(m.shape[1:]) for m in plain] == [(WIDTH, *expected[2])] * 4
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands_is_taken(bands):
    encoder = make_tiny(bands=bands, out_indices=(1, 3))
    with torch.no_grad():
        maps = encoder(torch.randn(2, bands, 64, 32))
    assert [tuple(m.shape) for m in maps] == [(2, WIDTH // 2, 8, 4), (2, WIDTH, 2, 1)]
    assert encoder.strides == (8, 32)
    assert encoder.widths == (WIDTH // 2, WIDTH)


def test_the_maps_are_those_behind_each_quarter_of_the_layers():
    with torch.device("meta"):
        ends = {name: create_encoder(name).ends for name in PLAINMAMBA.variants}
    assert ends["plainmamba_l1"] == ends["plainmamba_l2"] == [5, 11, 17, 23]
    assert ends["plainmamba_l3"] == [8, 17, 26, 35]


def test_the_pyramid_is_made_of_transposed_convolutions_and_pooling():
    plain, encoder = make_tiny(pyramid=False), make_tiny()
    encoder.load_state_dict({**encoder.state_dict(), **plain.state_dict()})
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        flat, (finest, fine, same, coarse) = plain(image), encoder(image)
        torch.testing.assert_close(same, flat[2])
        torch.testing.assert_close(coarse, functional.max_pool2d(flat[3], 2))
        torch.testing.assert_close(fine, _doubled(encoder.neck_levels[1], flat[1]))
        first, _, second = encoder.neck_levels[0]
        expected = _doubled(second, functional.gelu(_doubled(first, flat[0])))
        torch.testing.assert_close(finest, expected)


def _doubled(level, x_BCHW):
    """Apply the weights of a level as a transposed convolution of 2x2 and a LayerNorm."""
    kernel = level.expand.weight.unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1)
    x = functional.conv_transpose2d(x_BCHW, kernel, stride=2)
    return level.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_the_classifier_reads_the_tokens_before_the_pyramid():
    plain, encoder = make_tiny(**PLAIN), make_tiny()
    encoder.load_state_dict({**encoder.state_dict(), **plain.state_dict()})
    classifier, image = PLAINMAMBA.classifier(encoder, 5), torch.randn(2, 3, 33, 47)
    with torch.no_grad():
        expected = classifier.head(plain(image)[0].mean((2, 3)))
        torch.testing.assert_close(classifier(image), expected)


def test_what_no_map_needs_is_left_out():
    encoder = make_tiny(out_indices=(0, 1))
    kinds = [isinstance(layer, nn.Identity) for layer in encoder.layers]
    assert kinds == [False, False, True, True, True]
    sum(m.square().mean() for m in encoder(torch.randn(1, 3, 64, 48))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_every_parameter_gets_a_gradient():
    encoder = make_tiny().train()
    sum(m.square().mean() for m in encoder(torch.randn(2, 3, 64, 48))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_training_in_16_bit_stays_finite():
    encoder = make_tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = encoder(10 * torch.randn(2, 3, 40, 56))
    sum(m.float().square().mean() for m in maps).backward()
    assert all(m.isfinite().all() for m in maps)
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_compiled_networks_give_the_same():
    encoder, image = make_tiny(depth=4), torch.randn(1, 3, 40, 56)
    torch.compiler.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for ours, expected in zip(compiled(image), encoder(image), strict=True):
            torch.testing.assert_close(ours, expected)


def test_mixers_are_those_of_the_released_code_unless_asked():
    mixer = make_tiny().layers[0].mixer
    assert isinstance(mixer, SS2D)
    assert not mixer.reorder_parameters and mixer.double_dt_bias
    assert isinstance(mixer.out_norm, nn.Identity)
    assert mixer.A_log.shape == (1, 2 * WIDTH, 16)


@pytest.mark.parametrize("settings", [{"width": 18}, {"depth": 3}, {"patch": 8}], ids=str)
def test_settings_that_do_not_fit_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        create_encoder("plainmamba_l1", **settings)
