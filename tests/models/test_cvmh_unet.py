"""CVMH-UNet against the paper's counts, and the contracts of a segmentation network."""

import math

import pytest
import torch
from torch.nn import functional

from cvmh.errors import ConfigError, ShapeError
from cvmh.models.cost import count_cost
from cvmh.models.cvss import CVSSBlock, Stage
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.ss2d import SS2D
from cvmh.models.zoo import PRESETS, create_model

BASELINE = {"block": "vss", "fusion": "add", "residual_wrap": False}
# Row of the paper, settings, parameters as the authors count them and true ones (M), GMACs (256 px)
# as their counter reads them, and the paper's own GFLOPs.
PUBLISHED = [
    ("baseline", BASELINE, 22.0379, 27.4277, 4.120, 4.09),
    ("cvss", {"fusion": "add"}, 30.4447, 35.8345, 5.646, 5.61),
    ("mfms", {"block": "vss", "residual_wrap": False}, 22.4332, 27.8230, 4.211, 4.18),
    ("full", {}, 30.8400, 36.2298, 5.737, 5.71),
    ("fc", {"pool_mixer": "fc"}, 30.9379, 36.3277, 5.737, 5.71),
]
# Norms and poolings are counted a little differently by the authors' counter.
GFLOPS_OFFSET = 0.04


@pytest.mark.parametrize(
    ("settings", "counted", "true", "gmacs", "published"),
    [row[1:] for row in PUBLISHED],
    ids=[row[0] for row in PUBLISHED],
)
def test_parameters_and_cost_are_the_published_ones(settings, counted, true, gmacs, published):
    cost = count_cost(create_model("cvmh_unet", **settings), height=256, width=256, bands=3)
    assert round(cost.leaf_parameters / 1e6, 4) == counted
    assert round(cost.parameters / 1e6, 4) == true
    assert round(cost.macs / 1e9, 3) == gmacs
    assert abs(cost.macs / 1e9 - published) < GFLOPS_OFFSET


def test_the_multi_scale_variant_has_the_published_parameters():
    cost = count_cost(create_model("cvmh_unet", fusion="aff"), height=256, width=256, bands=3)
    assert 31.235 <= cost.leaf_parameters / 1e6 <= 31.239
    assert round(cost.parameters / 1e6, 2) == pytest.approx(36.63, abs=0.011)
    assert abs(cost.macs / 1e9 - 5.69) < GFLOPS_OFFSET


def test_scan_paths_cost_the_same():
    costs = [
        count_cost(create_model("cvmh_unet_nano", scan=scan), height=64, width=64, bands=3)
        for scan in ("ss2d", "cs2d")
    ]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("bands", "num_classes"), [(1, 2), (10, 15)])
def test_every_preset_takes_any_bands_and_classes(name, bands, num_classes):
    network = create_model(name, bands=bands, num_classes=num_classes).eval()
    with torch.no_grad():
        assert network(torch.randn(1, bands, 32, 64)).shape == (1, num_classes, 32, 64)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (65, 97), (250, 230)])
def test_any_size_is_padded_and_cropped(nano, height, width):
    with torch.no_grad():
        assert nano(torch.randn(1, 3, height, width)).shape == (1, 6, height, width)


def test_padding_repeats_the_border(nano):
    image = torch.randn(1, 3, 40, 50)
    padded = functional.pad(image, (0, 14, 0, 24), mode="replicate")
    with torch.no_grad():
        expected = nano(padded)[..., :40, :50]
        torch.testing.assert_close(nano(image), expected, rtol=0, atol=1e-6)


def test_output_does_not_depend_on_the_rest_of_the_batch(nano):
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        together = nano(images)
        alone = torch.cat([nano(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_every_parameter_of_every_preset_gets_a_gradient():
    for name in ("cvmh_unet_small", "cvmh_unet_nano"):
        network = create_model(name, drop_path=0.0)
        network(torch.randn(2, 3, 64, 32)).square().mean().backward()
        missing = [key for key, p in network.named_parameters() if p.grad is None]
        assert not missing
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"scan": "ss2d"},
        {"line_order": "figure"},
        {"block": "vss"},
        {"residual_wrap": False},
        {"fusion": "aff"},
        {"fusion": "add"},
        {"pool_mixer": "fc"},
        {"shared_pool_mixer": False},
        {"dct_size": "fixed"},
        {"dct_orthonormal": False},
        {"num_frequencies": 16},
        {"d_state": 3},
        {"expand": 2.0},
        {"stem_widths": None},
        {"stem_widths": (8, 16)},
        {"decoder_depths": (1, 1, 1, 1)},
    ],
    ids=str,
)
def test_every_switch_changes_the_result(settings):
    image = torch.randn(2, 3, 64, 96)
    outputs = []
    for chosen in ({}, settings):
        torch.manual_seed(0)
        network = create_model("cvmh_unet_nano", drop_path=0.0, **chosen).train()
        outputs.append(network(image))
    assert outputs[0].shape == outputs[1].shape
    assert not torch.allclose(outputs[0], outputs[1])


def test_stochastic_depth_acts_in_training_only():
    network = create_model("cvmh_unet_nano", drop_path=0.5)
    image = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_stochastic_depth_rises_in_a_line_to_the_deepest_block_of_the_encoder_and_falls_after_it():
    network = create_model("cvmh_unet_nano", drop_path=0.3, decoder_depths=(2, 2, 1, 1))
    encoder = [block.drop.rate for stage in network.encoder for block in stage.blocks]
    assert encoder == pytest.approx([0.0, 0.06, 0.12, 0.18, 0.24, 0.3])
    decoder = [block.drop.rate for stage in network.decoder for block in stage.blocks]
    assert decoder == pytest.approx(encoder[::-1])


def test_two_blocks_are_wrapped_by_one_more_residual():
    class Double(torch.nn.Module):
        def forward(self, x, grid):
            return 2 * x

    x = torch.randn(1, 4, 4, 8)
    blocks = [Double() for _ in range(3)]
    # (x + 4 x), then a single block without a wrap of its own.
    assert torch.equal(Stage(blocks, residual_wrap=True)(x), 10 * x)
    assert torch.equal(Stage(blocks, residual_wrap=False)(x), 8 * x)


def test_ss2d_equals_its_equations_in_float64():
    torch.manual_seed(0)
    mixer = SS2D(8, d_state=2, paths="ss2d").double()
    x = torch.randn(1, 3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = _ss2d_by_loops(mixer, x)
        torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-12)


def _ss2d_by_loops(mixer, x_BHWC):
    """The equations of VMamba v0, token by token, without the scan op and its order tables."""
    _, height, width, _ = x_BHWC.shape
    signal, gate = (x_BHWC @ mixer.in_proj.weight.T).chunk(2, dim=-1)
    signal = functional.conv2d(
        signal.permute(0, 3, 1, 2), mixer.conv.weight, mixer.conv.bias, padding=1, groups=16
    )
    signal = functional.silu(signal)[0].permute(1, 2, 0)
    rows = [(r, c) for r in range(height) for c in range(width)]
    columns = [(r, c) for c in range(width) for r in range(height)]
    total = torch.zeros_like(signal)
    for k, path in enumerate([rows, columns, rows[::-1], columns[::-1]]):
        state = torch.zeros(16, 2, dtype=torch.float64)
        for r, c in path:
            u = signal[r, c]
            dt, b, c_out = (mixer.x_proj_weight[k] @ u).split([1, 2, 2])
            delta = functional.softplus(mixer.dt_weight[k].T @ dt + mixer.dt_bias[k])
            decay = torch.exp(-delta[:, None] * mixer.A_log[k].exp())
            state = decay * state + (delta * u)[:, None] * b
            total[r, c] += state @ c_out + mixer.D[k] * u
    normed = functional.layer_norm(total, (16,), mixer.out_norm.weight, mixer.out_norm.bias)
    return ((normed * functional.silu(gate[0])) @ mixer.out_proj.weight.T)[None]


def test_cvss_block_equals_its_equations():
    torch.manual_seed(0)
    block = CVSSBlock(16, mixer=lambda c: SS2D(c, d_state=1)).eval().double()
    x = torch.randn(2, 6, 5, 16, dtype=torch.float64)
    with torch.no_grad():
        scanned = block.scan(x).permute(0, 3, 1, 2)
        mean = scanned.mean((2, 3))
        ca = block.channel_attention
        hidden = torch.relu(mean @ ca.squeeze.weight[:, :, 0, 0].T + ca.squeeze.bias)
        weight = torch.sigmoid(hidden @ ca.excite.weight[:, :, 0, 0].T + ca.excite.bias)
        g = scanned * weight[:, :, None, None]
        conv, norm = block.local[0], block.local[1]
        local = functional.conv2d(x.permute(0, 3, 1, 2), conv.weight, padding=1, groups=16)
        local = (local / math.sqrt(1 + norm.eps)).clamp(0, 6)
        summary = torch.stack([local.mean(1), local.amax(1)], dim=1)
        scale = torch.sigmoid(
            functional.conv2d(summary, block.spatial_attention.conv.weight, padding=3)
        )
        fused = functional.conv2d(
            g + local * scale, block.fuse_depthwise.weight, padding=1, groups=16
        )
        fused = torch.einsum("bchw,dc->bhwd", fused, block.fuse_pointwise.weight[:, :, 0, 0])
        fused = functional.layer_norm(fused, (16,)) @ block.project.weight.T + block.project.bias
        u = x + fused
        expected = u + block.ffn(u.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-12)


def test_vss_block_is_a_residual_around_norm_and_mixer():
    block = MixerBlock(16, mixer=lambda c: SS2D(c, d_state=1)).eval()
    x = torch.randn(1, 4, 4, 16)
    assert torch.equal(block(x), x + block.mixer(block.norm(x)))


def test_initial_dt_lies_in_the_range_of_vmamba():
    dt = functional.softplus(SS2D(64).dt_bias)
    assert dt.min() >= 1e-3 * 0.999 and dt.max() <= 1e-1 * 1.001


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("cvmh_unet_nan", {}, "did you mean 'cvmh_unet_nano'?"),
        ("cvmh_unet", {"dstate": 4}, "unknown key 'dstate'; did you mean 'd_state'?"),
        ("cvmh_unet", {"scan": "zigzag"}, "'scan'"),
        (
            "unet_resnet18",
            {"encoder_name": "resnet0"},
            "there is no encoder 'resnet0'; did you mean",
        ),
    ],
)
def test_a_wrong_name_or_setting_is_told_with_the_right_one(name, settings, text):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        create_model(name, **settings)
    assert text in str(caught.value)


def test_the_whole_network_compiles_as_one_graph(nano):
    image = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    # All of torch.compile but the compiler at its end.
    compiled = torch.compile(nano, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(image), nano(image), atol=1e-5)
    torch._dynamo.reset()


def test_images_of_other_bands_are_refused_in_one_sentence():
    made = create_model("cvmh_unet_nano", bands=4)
    with pytest.raises(ShapeError, match=r"\(B, 4, H, W\) for a network of 4 bands, got \(1, 3"):
        made(torch.zeros(1, 3, 64, 64))
