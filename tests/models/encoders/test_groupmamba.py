"""GroupMamba: its figures, its equations in NumPy, its published names, what users do with it."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.autograd import gradcheck
from torch.func import functional_call

from cvmh.errors import ConfigError
from cvmh.models.cost import count_cost
from cvmh.models.encoders import create_encoder
from cvmh.models.encoders.groupmamba import GROUPMAMBA, GroupMambaClassifier
from cvmh.models.group_layer import GroupLayer
from cvmh.models.ss2d import SS2D
from cvmh.models.weights.groupmamba import GROUPMAMBA_LAYOUT

# The third width makes quarters that are no multiple of 16, as the real one does.
STEM, WIDTHS, DEPTHS = 12, (16, 32, 76, 96), (1, 1, 2, 1)
SMALL = {"stem_width": STEM, "widths": WIDTHS, "depths": DEPTHS}
EPS = 1e-6


def small(**settings):
    torch.manual_seed(0)
    return create_encoder("groupmamba_tiny", **{**SMALL, **settings}).eval()


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", GROUPMAMBA.variants)
def test_parameters_are_counted_as_in_the_released_code(name, published_weights):
    shapes = published_weights.groupmamba(name)
    with torch.device("meta"):
        classifier = GroupMambaClassifier(create_encoder(name))
    assert num_parameters(classifier) == GROUPMAMBA.variants[name].published.parameters
    assert len(classifier.state_dict()) == len(shapes)


@pytest.mark.parametrize(
    ("name", "convolved"), [("tiny", 4.63), ("small", 7.19), ("base", 14.03)], ids=str
)
def test_flops_are_those_that_the_published_shapes_need(name, convolved):
    """The paper says 4.5 and 7.0 for the first two, which convolutions and Linears exceed alone."""
    published = GROUPMAMBA.variants[f"groupmamba_{name}"].published.gflops
    with torch.device("meta"):
        classifier = GroupMambaClassifier(create_encoder(f"groupmamba_{name}"))
    flops = count_cost(classifier, height=224, width=224, bands=3).flops / 1e9
    assert convolved <= flops <= convolved * 1.01
    assert flops == pytest.approx(published, rel=0.02 if name == "base" else 0.04)


def test_the_backbone_alone_is_counted_as_published():
    with torch.device("meta"):
        assert num_parameters(create_encoder("groupmamba_tiny")) == 20_462_224


@pytest.mark.parametrize("name", GROUPMAMBA.variants)
def test_every_published_tensor_has_its_place(name, published_weights, take_over):
    shapes = published_weights.groupmamba(name)
    with torch.device("meta"):
        expected = create_encoder(name).state_dict()
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
        taken = take_over(GROUPMAMBA_LAYOUT, weights)
    assert GROUPMAMBA_LAYOUT.detect(weights) == name
    assert {k: t.shape for k, t in taken.items()} == {k: t.shape for k, t in expected.items()}


def test_weights_of_unknown_sizes_are_of_no_variant(published_weights):
    shapes = published_weights.groupmamba_of(32, (64, 128, 348, 448), (3, 4, 8, 3))
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert GROUPMAMBA_LAYOUT.detect(weights) is None
    assert GROUPMAMBA_LAYOUT.detect({}) is None


def _layer(n, w, x, start):
    """Compute the modulated group layer: four scans of a quarter of the channels each."""
    normed = n.layer_norm(x, w, f"{start}.norm")
    hidden = n.relu(n.linear(normed.mean(axis=(0, 1)), w, f"{start}.fc1"))
    affinity = expit(n.linear(hidden, w, f"{start}.fc2"))
    groups = [
        n.ss2d(quarter, w, f"{start}.mamba_g{number + 1}", numbers=(number,), is_gated=True)
        for number, quarter in enumerate(np.split(normed, 4, axis=-1))
    ]
    mixed = np.concatenate(groups, axis=-1) * w[f"{start}.skip_scale"] * normed * affinity
    return n.linear(n.layer_norm(mixed, w, f"{start}.norm"), w, f"{start}.proj")


def _block(n, w, x, start):
    x = x + _layer(n, w, x, f"{start}.attn")
    hidden = n.linear(n.layer_norm(x, w, f"{start}.norm2", EPS), w, f"{start}.mlp.fc1")
    hidden = n.conv(hidden, w, f"{start}.mlp.dwconv.dwconv", padding=1, is_depthwise=True)
    return x + n.linear(n.gelu(hidden), w, f"{start}.mlp.fc2")


def _last_map(n, w, image):
    """Compute the last map of a small GroupMamba, before its norm."""
    x = image
    for index in (0, 3, 6):
        stride, padding = (1, 1) if index else (2, 3)
        x = n.conv(x, w, f"patch_embed1.conv.{index}", stride=stride, padding=padding)
        x = n.relu(n.batch_norm(x, w, f"patch_embed1.conv.{index + 1}"))
    for stage, depth in enumerate(DEPTHS, start=1):
        x = n.conv(x, w, f"patch_embed{stage}.proj", stride=2, padding=1)
        x = n.layer_norm(x, w, f"patch_embed{stage}.norm")
        for block in range(depth):
            x = _block(n, w, x, f"block{stage}.{block}")
        if stage < 4:
            x = n.layer_norm(x, w, f"norm{stage}", EPS)
    return x


@pytest.fixture(scope="module")
def derived(published_weights, equations):
    """Return weights, an image (H, W, 3), and what the equations make of it."""
    weights = equations.draw(published_weights.groupmamba_of(STEM, WIDTHS, DEPTHS))
    image = np.random.default_rng(1).normal(size=(33, 47, 3))
    return weights, image, _last_map(equations, weights, image)


def as_batch(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_published_weights_give_what_the_equations_give(derived, equations, take_over):
    weights, image, last = derived
    encoder = small(out_indices=(3,)).double()
    taken = take_over(GROUPMAMBA_LAYOUT, weights)
    encoder.load_state_dict(taken)
    expected = equations.layer_norm(last, weights, "norm4", EPS)
    with torch.no_grad():
        computed = encoder(as_batch(image))[0][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-9)


def test_the_classifier_gives_the_mean_of_both_heads(derived, equations, take_over):
    weights, image, last = derived
    n, w, start = equations, weights, "post_network.0"
    x = last.mean(axis=(0, 1), keepdims=True)
    x = x + n.layer_norm(_layer(n, w, x, f"{start}.attn"), w, f"{start}.norm1", EPS)
    hidden = n.linear(n.layer_norm(x, w, f"{start}.norm2", EPS), w, f"{start}.mlp.fc1")
    x = x + n.linear(n.gelu(hidden), w, f"{start}.mlp.fc2")
    x = n.layer_norm(x, w, "norm4", EPS)
    expected = [n.linear(x, w, head)[0, 0] for head in ("head", "dist_head")]

    classifier = GroupMambaClassifier(small()).double().eval()
    classifier.load_state_dict(_of_classifier(weights, take_over))
    with torch.no_grad():
        mean, both = classifier(as_batch(image)), classifier.logits(as_batch(image))
    np.testing.assert_allclose(torch.cat(both).numpy(), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mean[0].numpy(), np.mean(expected, axis=0), rtol=0, atol=1e-9)


def _of_classifier(weights, take_over):
    """Return published weights as those of our classifier."""
    taken = take_over(GROUPMAMBA_LAYOUT, weights)
    ours = {f"encoder.{k}".replace("encoder.norms.3.", "norm."): t for k, t in taken.items()}
    # But for its first norm, the class block has names like any block.
    block = {k.replace("post_network", "block4"): a for k, a in weights.items() if "post_" in k}
    block = {k: a for k, a in block.items() if ".norm1." not in k}
    taken = take_over(GROUPMAMBA_LAYOUT, block)
    ours |= {k.replace("stages.3.0.", "block."): t for k, t in taken.items()}
    names = {"post_network.0.norm1": "block.norm", "head": "head", "dist_head": "teacher_head"}
    for theirs, name in names.items():
        for kind in ("weight", "bias"):
            ours[f"{name}.{kind}"] = torch.as_tensor(weights[f"{theirs}.{kind}"])
    return ours


def test_gradients_are_right_on_maps_that_are_not_square():
    torch.manual_seed(0)
    layer = GroupLayer(16).double()
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(1, 2, 3, 16, dtype=torch.float64, requires_grad=True)

    def run(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("paths", ["columns", "columns_reversed"])
def test_gradients_along_columns_are_right_where_the_original_fails(paths):
    torch.manual_seed(0)
    mixer = SS2D(4, paths=paths, d_state=1, expand=1).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(mixer, (x,))


def test_each_quarter_goes_its_own_way():
    """Past the convolutions, a quarter hears of a pixel only where its path comes later."""
    torch.manual_seed(0)
    layer = GroupLayer(64).double()
    height, width, row, column = 9, 11, 4, 5
    x = torch.randn(1, height, width, 16, dtype=torch.float64)
    changed = x.clone()
    changed[0, row, column] += 1
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    by_row = (rows - row) * width + columns - column
    by_column = (columns - column) * height + rows - row
    # The 3x3 convolution spreads the change to pixels around, which the path meets in turn.
    reach = {0: by_row + width + 1, 1: by_column + height + 1}
    reach |= {2: -by_row + width + 1, 3: -by_column + height + 1}
    for number, mixer in enumerate(layer.mixers):
        with torch.no_grad():
            heard = (mixer(changed) - mixer(x))[0].abs().amax(dim=-1) > 0
        assert torch.equal(heard, heard & (reach[number] >= 0))
        assert heard.float().mean() > 0.4


@pytest.mark.parametrize("size", [(33, 47), (65, 97), (250, 230)], ids=str)
def test_any_size_gives_maps_rounded_up(size):
    with torch.no_grad():
        maps = small()(torch.randn(1, 3, *size))
    expected = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(m.shape[1:]) for m in maps] == [
        (width, *side) for width, side in zip(WIDTHS, expected, strict=True)
    ]
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands_is_taken(bands):
    with torch.no_grad():
        maps = small(bands=bands, out_indices=(1, 3))(torch.randn(1, bands, 64, 32))
    assert [tuple(m.shape) for m in maps] == [(1, 32, 8, 4), (1, 96, 2, 1)]


def test_the_next_stage_reads_the_map_behind_its_norm():
    encoder, image = small(), torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        before = encoder(image)
        encoder.norms[0].weight.zero_()
        after = encoder(image)
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_training_in_16_bit_stays_finite(dtype):
    encoder = small().train()
    with torch.autocast("cpu", dtype):
        maps = encoder(10 * torch.randn(2, 3, 40, 56))
    sum(m.float().square().mean() for m in maps).backward()
    assert all(m.isfinite().all() for m in maps)
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_whole_networks_in_16_bit_stay_close(dtype, tolerance):
    encoder, image = small(), torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        expected = encoder(image)[-1]
        computed = encoder.to(dtype)(image.to(dtype))[-1].float()
    assert (computed - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    "part", ["layer", pytest.param("network", marks=pytest.mark.slow)], ids=str
)
def test_compiled_networks_give_the_same(part):
    torch.manual_seed(0)
    is_layer = part == "layer"
    module = GroupLayer(32).eval() if is_layer else small(depths=(1, 1, 1, 1))
    x = torch.randn(1, 5, 7, 32) if is_layer else torch.randn(1, 3, 40, 56)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


def test_layers_start_as_in_the_released_code():
    block = small(widths=(64, 64, 64, 256)).stages[3][0]
    assert block.ffn.widen.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.mixer.affinity.excite.weight.std().item() == pytest.approx(0.02, rel=0.05)
    # Nine outputs hear of each weight's input, in the one group that it belongs to.
    assert block.ffn.conv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.02)
    assert not block.ffn.conv.bias.any()
    assert block.mixer.skip_scale.item() == 1


@pytest.mark.parametrize("widths", [(16, 32, 70, 96), (2, 32, 76, 96)])
def test_widths_that_do_not_go_into_quarters_are_refused(widths):
    with pytest.raises(ConfigError, match="widths"):
        small(widths=widths)
