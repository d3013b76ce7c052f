from collections import Counter

import pytest
import torch
from torch import nn

from cvmh.config import TrainSettings
from cvmh.models.zoo import create_model
from cvmh.train.optimiser import is_decayed, make_optimiser, stage_of

NETWORKS = {
    "cvmh": ("cvmh_unet_nano", {}),
    "resnet": ("unet_resnet18", {}),
    "transformer": ("unet_resnet18", {"arch": "segformer", "encoder_name": "mit_b0"}),
    "timm": ("unet_resnet18", {"encoder_name": "tu-convnext_atto"}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    name, settings = NETWORKS[request.param]
    return create_model(name, **settings)


def groups_of(network, **settings):
    """Return the group of each parameter by its name."""
    groups = make_optimiser(network, TrainSettings(**settings)).param_groups
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in network.named_parameters()}


def test_every_parameter_is_in_exactly_one_group(network):
    settings = TrainSettings(encoder_rate=0.1, layer_decay=0.8)
    groups = make_optimiser(network, settings).param_groups
    grouped = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert grouped == Counter(id(parameter) for parameter in network.parameters())


def test_matrices_are_decayed_and_norms_biases_and_ssm_parameters_are_not(network):
    groups = groups_of(network, weight_decay=0.07)
    for name, parameter in network.named_parameters():
        last = name.rsplit(".", 1)[-1]
        is_free = last in ("A_log", "D", "dt_bias", "bias") or parameter.ndim == 1
        assert groups[name]["weight_decay"] == (0 if is_free else 0.07), name


def test_the_ssm_parameters_that_are_not_decayed_are_there_under_their_names():
    names = {
        name.rsplit(".", 1)[-1] for name, _ in create_model("cvmh_unet_nano").named_parameters()
    }
    assert {"A_log", "D", "dt_bias"} <= names


def test_all_learn_alike_unless_something_else_is_said(network):
    assert {group["factor"] for group in groups_of(network).values()} == {1.0}


def test_the_encoder_has_its_own_rate(network):
    before_the_head = ("stem", "encoder", "merge")
    for name, group in groups_of(network, encoder_rate=0.1).items():
        assert group["factor"] == (0.1 if name.split(".")[0] in before_the_head else 1.0), name


def test_the_rate_falls_by_a_factor_per_stage_from_the_decoder_to_the_stem(network):
    groups = groups_of(network, encoder_rate=0.5, layer_decay=0.8)
    factors = {stage_of(name): group["factor"] for name, group in groups.items()}
    assert factors.pop(None) == 1
    deepest = max(factors)
    assert deepest >= 3
    for stage, factor in factors.items():
        assert factor == pytest.approx(0.5 * 0.8 ** (deepest - stage + 1))


def test_directions_and_positions_of_plainmamba_are_not_decayed():
    names = ["layers.0.mixer.direction_weight", "position", "layers.0.mixer.in_proj.weight"]
    parameter = nn.Parameter(torch.ones(5, 16))
    assert [is_decayed(f"encoder.model.{name}", parameter) for name in names] == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("stem.at_full.0.weight", 0),
        ("encoder.0.blocks.1.norm.weight", 0),
        ("merge.0.reduce.weight", 0),
        ("encoder.3.blocks.1.scan.mixer.A_log", 3),
        ("encoder.layer4.1.bn2.bias", 4),
        ("encoder.patch_embed2.proj.weight", 2),
        ("encoder.model.stages_3.downsample.0.weight", 3),
        ("encoder.model.tokeniser.convs.3.weight", 0),
        ("encoder.model.layers.23.norm.weight", 23),
        ("encoder.model.neck_levels.1.expand.weight", None),
        ("decoder.0.blocks.0.norm.weight", None),
        ("segmentation_head.0.bias", None),
    ],
)
def test_the_stage_of_a_parameter_is_read_from_its_name(name, stage):
    assert stage_of(name) == stage


def test_what_is_frozen_is_in_no_group():
    network = create_model("cvmh_unet_nano")
    network.encoder.requires_grad_(False)
    groups = make_optimiser(network, TrainSettings()).param_groups
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])
