"""Published files of VSSD map one to one onto our encoders, and tell which variant they are."""

import re

import pytest
import torch

from cvmh.models.encoders import ENCODERS, create_encoder
from cvmh.models.weights.vssd import VSSD_LAYOUT

NAMES = [name for name, family in ENCODERS.items() if family.name == "VSSD"]


@pytest.fixture
def read(published_weights):
    """Return a function that gives the tensors of a published file, without values."""

    def read(name):
        shapes = published_weights.vssd(name)
        return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}

    return read


def taken_over(weights):
    """Return the shapes under our keys, and the published keys that have none."""
    shapes, unknown = {}, []
    for key, value in weights.items():
        ours = VSSD_LAYOUT.rename(key)
        if ours is None:
            unknown.append(key)
        else:
            assert ours not in shapes
            shapes[ours] = VSSD_LAYOUT.reshape(ours, value).shape
    return shapes, unknown


def shapes_of(name, **settings):
    with torch.device("meta"):
        encoder = create_encoder(name, **settings)
    return {key: value.shape for key, value in encoder.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_a_published_file_has_its_place(read, name):
    shapes, unknown = taken_over(read(name))
    assert shapes == shapes_of(name, out_indices=(3,))
    assert unknown == ["head.weight", "head.bias"]
    assert all(re.fullmatch(VSSD_LAYOUT.dropped, key) for key in unknown)


def test_an_encoder_of_four_maps_lacks_the_norms_behind_the_first_three(read):
    shapes, _ = taken_over(read("vssd_micro"))
    missing = set(shapes_of("vssd_micro")) - set(shapes)
    assert missing == {f"norms.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert all(re.fullmatch(VSSD_LAYOUT.absent, key) for key in missing)


def test_a_backbone_of_a_segmentation_file_has_all_four_norms(read):
    weights = {k: v for k, v in read("vssd_micro").items() if not k.startswith(("norm.", "head."))}
    for stage in range(4):
        for kind in ("weight", "bias"):
            weights[f"outnorm{stage}.{kind}"] = torch.empty(48 * 2**stage, device="meta")
    shapes, unknown = taken_over(weights)
    assert shapes == shapes_of("vssd_micro")
    assert not unknown


@pytest.mark.parametrize("name", NAMES)
def test_the_variant_is_seen_from_the_shapes(read, name):
    assert VSSD_LAYOUT.detect(read(name)) == name


def test_files_of_no_variant_are_not_taken_for_one(read):
    weights = read("vssd_tiny")
    shorter = {k: v for k, v in weights.items() if not k.startswith("layers.2.blocks.7.")}
    assert VSSD_LAYOUT.detect(shorter) is None
    assert VSSD_LAYOUT.detect({}) is None
    other = weights | {"layers.0.blocks.0.attn.conv2d.weight": torch.empty(160, 1, 3, 3)}
    assert VSSD_LAYOUT.detect(other) is None
    assert VSSD_LAYOUT.rename("layers.0.blocks.0.attn.x_proj_weight") is None
