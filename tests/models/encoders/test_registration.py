"""Our encoders in networks of segmentation-models-pytorch, built by smp itself."""

import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import torch

from cvmh import register_encoders
from cvmh.errors import ConfigError
from cvmh.models.encoders import ENCODERS, FAMILIES
from cvmh.models.encoders.registration import PREFIX, SmpEncoder

register_encoders()
TINY = "cvmh-vmamba_tiny_s1l8"
# DPT is for vision transformers of timm.
ARCHITECTURES = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt"})
# The first of each family, and VMamba's other generation.
SMALLEST = [*(next(iter(family.variants)) for family in FAMILIES), "vmamba_tiny_s1l8"]
# Those whose steps join pixels without a convolution, and that with one stride in all.
UNDILATED = [n for n in ENCODERS if n.startswith(("vim2", "plainmamba")) or n.endswith("_v0")]


def on_meta(arch, encoder_name, **settings):
    with torch.device("meta"):
        return smp.create_model(
            arch, encoder_name=encoder_name, encoder_weights=None, classes=5, **settings
        ).eval()


def test_every_encoder_is_registered():
    assert {PREFIX + name for name in ENCODERS} <= set(smp.encoders.get_encoder_names())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_of_smp_takes_our_encoders(arch):
    network = on_meta(arch, TINY, in_channels=4)
    with torch.no_grad():
        assert network(torch.empty(2, 4, 256, 128, device="meta")).shape == (2, 5, 256, 128)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("depth", [3, 5])
def test_the_maps_are_what_smp_expects(name, depth):
    with torch.device("meta"):
        encoder = SmpEncoder(name, depth).eval()
    with torch.no_grad():
        maps = encoder(torch.empty(2, 3, 96, 64, device="meta"))
    assert [tuple(x.shape[:2]) for x in maps] == [
        (2, channels) for channels in encoder.out_channels
    ]
    assert encoder.out_channels[:2] == [3, 0] and 0 not in encoder.out_channels[2:]
    sizes = [(96 // 2**i, 64 // 2**i) for i in range(depth + 1)]
    assert [tuple(x.shape[2:]) for x in maps] == sizes


@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in UNDILATED])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_output_stride_can_be_smaller(name, stride):
    with torch.device("meta"):
        encoder = SmpEncoder(name, output_stride=stride).eval()
        encoder.make_dilated(stride)
    with torch.no_grad():
        maps = encoder(torch.empty(1, 3, 64, 128, device="meta"))
    assert [64 // x.shape[2] for x in maps] == [1, 2, 4, 8, min(16, stride), stride]
    assert encoder.output_stride == stride


@pytest.mark.parametrize("name", [name for name in SMALLEST if name in UNDILATED])
def test_a_smaller_output_stride_is_refused_where_nothing_can_be_dilated(name):
    with pytest.raises(ConfigError, match=r"^encoder_output_stride must be 32 for 'cvmh-"):
        on_meta("deeplabv3plus", PREFIX + name)


@pytest.mark.parametrize("name", ["vmamba_tiny_s1l8", "vssd_micro"])
def test_dilated_convolutions_see_the_pixels_that_strided_ones_saw(name):
    torch.manual_seed(0)
    settings = {"depths": (1, 1, 1, 1)}
    encoder = SmpEncoder(name, settings=settings).eval()
    for block in (block for stage in encoder.model.stages for block in stage):
        # Scans and attention see all of a map; without them there are only convolutions.
        torch.nn.init.zeros_(block.mixer.out_proj.weight)
        if block.mixer.out_proj.bias is not None:
            torch.nn.init.zeros_(block.mixer.out_proj.bias)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        strided = encoder(image)[-1]
        encoder.make_dilated(8)
        torch.testing.assert_close(encoder(image)[-1][..., ::4, ::4], strided)


def test_other_bands_keep_the_weights_of_known_ones():
    encoder = SmpEncoder("vssd_micro", 3, settings={"depths": (1, 1, 1, 1)})
    before = encoder.model.state_dict()
    encoder.set_in_channels(6)
    after = encoder.model.state_dict()
    stem = before.pop("stem.first.conv.weight")
    # Six bands answer together as three did: each counts half.
    expected = torch.cat([stem, stem.mean(1, keepdim=True).expand(-1, 3, -1, -1)], dim=1) / 2
    torch.testing.assert_close(after.pop("stem.first.conv.weight"), expected)
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert encoder.out_channels[0] == 6
    encoder.set_in_channels(1, pretrained=False)
    assert encoder.model.stem.first.conv.weight.shape[1] == encoder.out_channels[0] == 1


def test_encoders_of_other_settings_keep_the_channels_of_the_decoder():
    encoder = SmpEncoder("vmamba_tiny_s1l8", 4, bands=4)
    other = encoder.with_settings({"drop_path": 0.0, "depths": (1, 1, 1, 1)})
    assert other.out_channels == encoder.out_channels == [4, 0, 96, 192, 384]
    with pytest.raises(ConfigError, match=r"must keep the channels \[96, 192, 384\]"):
        encoder.with_settings({"width": 48})
    with pytest.raises(ConfigError, match="did you mean 'drop_path'"):
        encoder.with_settings({"droppath": 0.0})


def test_a_wrong_depth_or_stride_is_told():
    with pytest.raises(ConfigError, match=r"encoder_depth must be one of \(3, 4, 5\)"):
        smp.create_model("unet", encoder_name=TINY, encoder_weights=None, encoder_depth=2)
    with pytest.raises(ConfigError, match="must be 8, 16 or 32, got 4"):
        SmpEncoder("vmamba_tiny_s1l8", 3, settings={"depths": (1, 1, 1, 1)}).make_dilated(4)


def test_our_networks_do_not_load_smp():
    code = (
        "import sys, cvmh; from cvmh.models.encoders import create_encoder; "
        "cvmh.create_model('cvmh_unet_nano'); create_encoder('vssd_micro'); "
        "print({'segmentation_models_pytorch', 'timm', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
