"""VMamba: its figures, its equations in NumPy, its published names, and what users do with it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from cvmh.errors import ConfigError
from cvmh.models.cost import count_cost
from cvmh.models.encoders import Classifier, create_encoder
from cvmh.models.encoders.vmamba import VMAMBA
from cvmh.models.weights.vmamba import VMAMBA_V0_LAYOUT, VMAMBA_V2_LAYOUT

LAYOUTS = {"v0": VMAMBA_V0_LAYOUT, "v2": VMAMBA_V2_LAYOUT}
# A name of each kind, and what makes it small: generation, ratio and blocks stay.
SMALL = {
    "vmamba_tiny_v0": {"width": 20, "depths": (1, 1, 2, 1)},
    "vmamba_tiny_s2l5": {"width": 20, "depths": (1, 1, 2, 1)},
    "vmamba_tiny_s1l8": {"width": 20, "depths": (1, 1, 2, 1)},
}


def small(name, **settings):
    torch.manual_seed(0)
    return create_encoder(name, **{**SMALL[name], **settings}).eval()


def sizes(name):
    settings = VMAMBA.settings.model_validate({**VMAMBA.variants[name].settings, **SMALL[name]})
    return settings.generation, settings.width, int(settings.expand), settings.depths


@pytest.mark.parametrize("name", VMAMBA.variants)
def test_parameters_are_counted_as_in_the_released_code(name, published_weights):
    with torch.device("meta"):
        classifier = Classifier(create_encoder(name, out_indices=(3,)))
    shapes = published_weights.vmamba(name)
    assert sum(p.numel() for p in classifier.parameters()) == VMAMBA.variants[name].published[0]
    assert sum(np.prod(shape) for shape in shapes.values()) == VMAMBA.variants[name].published[0]
    assert len(classifier.state_dict()) == len(shapes)


@pytest.mark.parametrize("name", VMAMBA.variants)
def test_flops_are_counted_as_published(name):
    with torch.device("meta"):
        classifier = Classifier(create_encoder(name, out_indices=(3,)))
    cost = count_cost(classifier, height=224, width=224, bands=3)
    assert cost.flops / 1e9 == pytest.approx(VMAMBA.variants[name].published.gflops, rel=0.02)


@pytest.mark.parametrize("name", VMAMBA.variants)
def test_every_published_tensor_has_its_place_in_every_style(name, published_weights, take_over):
    generation = VMAMBA.variants[name].settings.get("generation", "v2")
    with torch.device("meta"):
        expected = create_encoder(name, out_indices=(3,)).state_dict()
        for style in published_weights.VMAMBA_STYLES[generation]:
            shapes = published_weights.vmamba(name, style=style)
            weights = {key: torch.empty(shape) for key, shape in shapes.items()}
            assert [layout.detect(weights) for layout in LAYOUTS.values()].count(name) == 1
            taken = take_over(LAYOUTS[generation], weights)
            assert {k: t.shape for k, t in taken.items()} == {
                k: t.shape for k, t in expected.items()
            }


def test_weights_of_unknown_sizes_are_of_no_variant(published_weights):
    shapes = published_weights.vmamba_of("v2", 96, 1, (2, 2, 7, 2))
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert [layout.detect(weights) for layout in LAYOUTS.values()] == [None, None]
    assert [layout.detect({}) for layout in LAYOUTS.values()] == [None, None]


def _forward(np_layers, generation, weights, image, depths):
    """Compute the normed last map of a VMamba, as its classifier reads it."""
    n, w = np_layers, weights
    if generation == "v0":
        rows, columns = (-size % 4 for size in image.shape[:2])
        image = np.pad(image, ((0, rows), (0, columns), (0, 0)))
        x = n.layer_norm(n.conv(image, w, "patch_embed.0", stride=4), w, "patch_embed.2")
    else:
        x = n.conv(image, w, "patch_embed.0", stride=2, padding=1)
        x = n.gelu(n.layer_norm(x, w, "patch_embed.2"))
        x = n.layer_norm(n.conv(x, w, "patch_embed.5", stride=2, padding=1), w, "patch_embed.7")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            start = f"layers.{stage}.blocks.{block}"
            normed = n.layer_norm(x, w, f"{start}.norm")
            x = x + n.ss2d(normed, w, f"{start}.op", is_gated=generation == "v0")
            if generation == "v2":
                hidden = n.linear(n.layer_norm(x, w, f"{start}.norm2"), w, f"{start}.mlp.fc1")
                x = x + n.linear(n.gelu(hidden), w, f"{start}.mlp.fc2")
        if stage < 3:
            x = _downsample(n, generation, w, x, f"layers.{stage}.downsample")
    return n.layer_norm(x, w, "classifier.norm")


def _downsample(n, generation, w, x, start):
    if generation == "v2":
        return n.layer_norm(n.conv(x, w, f"{start}.1", stride=2, padding=1), w, f"{start}.3")
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
    corners = [x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]]
    normed = n.layer_norm(np.concatenate(corners, axis=-1), w, f"{start}.norm")
    return n.linear(normed, w, f"{start}.reduction")


@pytest.mark.parametrize("name", SMALL)
def test_published_weights_give_what_the_equations_give(
    name, published_weights, equations, take_over
):
    generation, width, ratio, depths = sizes(name)
    weights = equations.draw(published_weights.vmamba_of(generation, width, ratio, depths))
    encoder = small(name, out_indices=(3,)).double()
    encoder.load_state_dict(take_over(LAYOUTS[generation], weights))
    image = np.random.default_rng(1).normal(size=(33, 47, 3))
    expected = _forward(equations, generation, weights, image, depths)
    with torch.no_grad():
        computed = encoder(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    np.testing.assert_allclose(computed[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-9)


def test_all_styles_of_a_file_give_the_same_network(published_weights, equations, take_over):
    for generation, ratio in (("v0", 2), ("v2", 1)):
        first, *others = published_weights.VMAMBA_STYLES[generation]
        arguments = generation, 20, ratio, (1, 1, 1, 1)
        keys = list(published_weights.vmamba_of(*arguments, style=first))
        weights = equations.draw(published_weights.vmamba_of(*arguments, style=first))
        expected = take_over(LAYOUTS[generation], weights)
        for style in others:
            shapes = published_weights.vmamba_of(*arguments, style=style)
            renamed = {
                new: weights[old].reshape(shapes[new])
                for old, new in zip(keys, shapes, strict=True)
            }
            taken = take_over(LAYOUTS[generation], renamed)
            assert all(torch.equal(taken[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_right_on_maps_that_are_not_square(name):
    block = small(name, width=16, depths=(1, 1, 1, 1)).stages[0][0].double()
    names, parameters = zip(*block.named_parameters(), strict=True)
    x = torch.randn(1, 2, 3, 16, dtype=torch.float64, requires_grad=True)

    def run(x, *values):
        return functional_call(block, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(33, 47), (65, 97), (250, 230)], ids=str)
def test_any_size_gives_maps_rounded_up(name, size):
    with torch.no_grad():
        maps = small(name)(torch.randn(1, 3, *size))
    expected = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(m.shape[2:]) for m in maps] == expected
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands_is_taken(name, bands):
    with torch.no_grad():
        maps = small(name, bands=bands, out_indices=(1, 3))(torch.randn(1, bands, 64, 32))
    assert [tuple(m.shape) for m in maps] == [(1, 40, 8, 4), (1, 160, 2, 1)]


@pytest.mark.parametrize("name", SMALL)
def test_training_in_16_bit_stays_finite(name):
    encoder = small(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = encoder(10 * torch.randn(2, 3, 40, 56))
    sum(m.float().square().mean() for m in maps).backward()
    assert all(m.isfinite().all() for m in maps)
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("name", ["vmamba_tiny_v0", "vmamba_tiny_s1l8"])
def test_compiled_networks_give_the_same(name):
    encoder = small(name, width=16, depths=(1, 1, 1, 1))
    image = torch.randn(1, 3, 40, 56)
    torch.compiler.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for ours, expected in zip(compiled(image), encoder(image), strict=True):
            torch.testing.assert_close(ours, expected)


def test_stages_by_stride_cover_the_network():
    encoder = small("vmamba_tiny_s1l8")
    stages = encoder.stages_by_stride()
    counted = sum(p.numel() for parts in stages.values() for m in parts for p in m.parameters())
    norms = sum(p.numel() for p in encoder.norms.parameters())
    assert list(stages) == [4, 8, 16, 32]
    assert counted + norms == sum(p.numel() for p in encoder.parameters())


def test_layers_start_as_in_the_classification_code():
    torch.manual_seed(0)
    mixer = create_encoder("vmamba_tiny_s1l8", depths=(1, 1, 1, 1)).stages[3][0].mixer
    assert mixer.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    # Uniform between -1 / sqrt(768) and 1 / sqrt(768), and not drawn anew.
    assert mixer.x_proj_weight.std().item() == pytest.approx((3 * 768) ** -0.5, rel=0.02)
    dt = nn.functional.softplus(mixer.dt_bias)
    assert 1e-3 * 0.999 < dt.min() and dt.max() < 1e-1 * 1.001


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match="generation"):
        create_encoder("vmamba_tiny_v0", generation="v3")
