"""What holds for every encoder, whatever its family."""

import shutil

import pytest
import torch

from cvmh.errors import ConfigError, ShapeError
from cvmh.models.encoders import create_encoder
from cvmh.models.encoders.encoder import Encoder


@pytest.mark.parametrize("indices", [(), (4,), (-1,), (2, 1), (1, 1)], ids=str)
def test_maps_that_an_encoder_cannot_return_in_order_are_refused(indices):
    with pytest.raises(ConfigError, match=r"out_indices must be rising numbers from 0 to 3, got"):
        Encoder(bands=3, widths=(1, 2, 3, 4), strides=(4, 8, 16, 32), out_indices=indices)


@pytest.mark.parametrize("name", ["groupmamba_tny", "GroupMamba_Tiny", "cvmh-groupmamba_tiny"])
def test_a_wrong_name_is_told_with_the_right_one(name):
    with pytest.raises(ConfigError, match="did you mean 'groupmamba_tiny'"):
        create_encoder(name)


def test_a_wrong_setting_is_told_by_its_name():
    with pytest.raises(ConfigError, match="encoder 'groupmamba_tiny': unknown key 'width'"):
        create_encoder("groupmamba_tiny", width=3)


def test_maps_are_described_as_timm_does():
    encoder = create_encoder("vmamba_tiny_s1l8", width=8, depths=(1, 1, 1, 1), out_indices=(0, 2))
    assert encoder.feature_info == [
        {"index": 0, "num_chs": 8, "reduction": 4},
        {"index": 2, "num_chs": 32, "reduction": 16},
    ]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vmamba_tiny_s1l8", {"width": 8, "depths": (1, 1, 1, 1)}),
        ("plainmamba_l1", {"width": 8, "depth": 4}),
    ],
)
@pytest.mark.parametrize("shape", [(1, 3, 40, 40), (4, 40, 40)])
def test_images_of_other_bands_are_refused_in_one_sentence(name, settings, shape):
    encoder = create_encoder(name, bands=4, **settings)
    with pytest.raises(ShapeError) as error:
        encoder(torch.zeros(shape))
    assert str(error.value) == f"images must be (B, 4, H, W) for a network of 4 bands, got {shape}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs by g++")
def test_compiled_for_a_cpu_maps_and_gradients_stay(tmp_path, monkeypatch):
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    encoder = create_encoder("vssd_tiny", width=16, depths=(1, 1, 1, 1), d_state=8).eval()
    image = torch.randn(1, 3, 40, 56)

    def run(network):
        encoder.zero_grad()
        maps = network(image)
        sum(x.square().mean() for x in maps).backward()
        gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        return [x.detach() for x in maps], gradients

    with inductor.patch(compile_threads=1):
        compiled = run(torch.compile(encoder, fullgraph=True))
    torch.testing.assert_close(compiled, run(encoder), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
