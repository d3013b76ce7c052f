"""What holds for every encoder, whatever its family."""

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
