"""Networks by the names smp:ARCH:ENCODER."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional

from cvmh.config import TrainSettings
from cvmh.errors import ConfigError, ShapeError
from cvmh.models.transfer import freeze_encoder
from cvmh.models.zoo import create_model, find_preset
from cvmh.train.optimiser import make_optimiser, stage_of

SMALL = {"encoder_settings": {"depths": [1, 1, 1, 1], "drop_path": 0.0}}
OURS = "smp:unet:cvmh-vssd_micro"


def small(name=OURS, **settings):
    torch.manual_seed(0)
    return create_model(name, num_classes=4, **SMALL, **settings).eval()


@pytest.fixture(scope="module")
def ours():
    return small()


@pytest.mark.parametrize("name", ["smp:fpn:resnet18", "smp:pan:resnet18", "smp:pspnet:resnet18"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (65, 97)])
def test_any_size_is_padded_and_cropped(name, height, width):
    network = create_model(name, bands=2, num_classes=4).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, height, width)).shape == (1, 4, height, width)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (65, 97), (250, 230)])
def test_padding_repeats_the_border(ours, height, width):
    image = torch.randn(1, 3, height, width)
    padded = functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
    with torch.no_grad():
        expected = ours(padded)[..., :height, :width]
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-5)


def test_it_is_the_network_that_smp_makes():
    torch.manual_seed(0)
    theirs = smp.create_model("unet", encoder_name="resnet18", encoder_weights=None, classes=4)
    network = create_model("smp:unet:resnet18", num_classes=4)
    network.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), theirs.eval()(image))


@pytest.mark.parametrize(
    "name", ["smp:upernet:tu-convnext_atto", "smp:dpt:tu-vit_tiny_patch16_224"]
)
def test_encoders_of_timm_serve(name):
    with torch.device("meta"):
        network = create_model(name, bands=4, num_classes=5).eval()
    with torch.no_grad():
        assert network(torch.empty(1, 4, 60, 90, device="meta")).shape == (1, 5, 60, 90)


def test_the_output_does_not_depend_on_the_rest_of_the_batch(ours):
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        alone = torch.cat([ours(image[None]) for image in images])
        torch.testing.assert_close(ours(images), alone, rtol=0, atol=1e-4)


def test_every_parameter_gets_a_gradient():
    network = small().train()
    network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]


def test_the_encoder_can_be_frozen_and_its_stages_learn_at_their_own_rates():
    network = small()
    settings = TrainSettings(layer_decay=0.5, encoder_rate=0.8)
    factors = {group["factor"] for group in make_optimiser(network, settings).param_groups}
    assert factors == {1.0, 0.4, 0.2, 0.1, 0.05}
    assert stage_of("encoder.model.stem.second.1.conv.weight") == 0
    assert stage_of("encoder.model.stages.2.0.norm.weight") == 2
    trained, whole = freeze_encoder(network)
    assert trained == sum(p.numel() for p in network.decoder.parameters()) + sum(
        p.numel() for p in network.segmentation_head.parameters()
    )
    assert trained < whole


def test_the_whole_network_compiles_as_one_graph(ours):
    image = torch.randn(1, 3, 40, 56)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(image), ours(image), atol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["smp:unet:resnet18", OURS])
def test_images_of_other_bands_are_refused(name):
    network = small(bands=4) if name == OURS else create_model(name, bands=4)
    with pytest.raises(ShapeError, match=r"for a network of 4 bands, got \(1, 3, 32"):
        network(torch.zeros(1, 3, 32, 32))


def test_settings_reach_the_architecture_and_the_encoder():
    network = small(decoder_channels=[64, 32, 16, 8, 4], encoder_depth=5)
    assert network.segmentation_head[0].in_channels == 4
    assert len(network.encoder.model.stages[2]) == 1


def test_a_learning_rate_is_recommended():
    assert find_preset(OURS).learning_rate == 1e-3


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("smp:unet", {}, "must be written smp:ARCH:ENCODER"),
        ("smp::resnet18", {}, "must be written smp:ARCH:ENCODER"),
        ("smp:upper:resnet18", {}, "no architecture 'upper'; did you mean 'upernet'?"),
        ("smp:unet:resnet17", {}, "no encoder 'resnet17'; did you mean 'resnet1"),
        ("smp:unet:cvmh-vsd_tiny", {}, "did you mean 'cvmh-vssd_tiny'?"),
        ("smp:unet:vssd_tiny", {}, "did you mean 'cvmh-vssd_tiny'?"),
        ("smp:unet:tu-convnext_atoo", {}, "did you mean 'tu-convnext_atto'?"),
        ("smp:dpt:cvmh-vssd_tiny", {}, "'dpt' needs a vision transformer of timm"),
        ("smp:deeplabv3plus:cvmh-vmamba_tiny_v0", {}, "encoder_output_stride must be 32"),
        ("smp:unet:resnet18", {"encoder_deph": 4}, "did you mean 'encoder_depth'?"),
        ("smp:unet:resnet18", {"activation": "sigmoid"}, "unknown key 'activation'"),
        ("smp:unet:resnet18", {"encoder_depth": 9}, "cannot be built"),
        ("smp:unet:resnet18", {"encoder_settings": {"depths": 1}}, "leave them out"),
        (OURS, {"encoder_settings": {"drop_pat": 0}}, "did you mean 'drop_path'?"),
        (OURS, {"encoder_depth": 2}, "must be one of (3, 4, 5)"),
        (OURS, {"encoder_settings": {"bands": 4}}, "bands of encoder 'vssd_micro' follows from"),
        (OURS, {"encoder_settings": {"out_indices": [0]}}, "out_indices of encoder"),
        (OURS, {"arch": "fpn"}, "arch is 'unet' by its name, got 'fpn'"),
        (OURS, {"encoder_name": "resnet18"}, "or train smp:unet:resnet18"),
        ("smp:UNet:resnet18", {}, "did you mean 'unet'?"),
        ("smp:unet:CVMH-VSSD_Tiny", {}, "did you mean 'cvmh-vssd_tiny'?"),
        ("vssd_tiny", {}, "'vssd_tiny' is an encoder, which needs a decoder"),
        ("cvmh-vssd_tiny", {}, "for example smp:upernet:cvmh-vssd_tiny"),
        ("CVMH_UNET", {}, "there is no network 'CVMH_UNET'; did you mean 'cvmh_unet'?"),
        ("nothing", {}, "known: cvmh_unet, "),
    ],
)
def test_what_is_wrong_with_a_name_or_a_setting_is_told(name, settings, text):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught, torch.device("meta"):
        create_model(name, **settings)
    assert text in str(caught.value) and name in str(caught.value)
