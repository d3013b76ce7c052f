from collections import Counter

import pytest

from cvmh.classes import ISPRS
from cvmh.config import TrainSettings
from cvmh.models.zoo import create_model
from cvmh.train.module import SegmentationModule


@pytest.fixture(scope="module", params=["cvmh_unet_nano", "unet_resnet18"])
def network(request):
    return create_model(request.param)


@pytest.fixture(scope="module")
def groups(network):
    settings = TrainSettings(weight_decay=0.07)
    return SegmentationModule(network, ISPRS, settings).configure_optimizers().param_groups


def test_every_parameter_is_in_exactly_one_group(network, groups):
    grouped = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert grouped == Counter(id(parameter) for parameter in network.parameters())


def test_matrices_are_decayed_and_norms_biases_and_ssm_parameters_are_not(network, groups):
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        last = name.rsplit(".", 1)[-1]
        is_free = last in ("A_log", "D", "dt_bias", "bias") or parameter.ndim == 1
        assert decay[id(parameter)] == (0 if is_free else 0.07), name


def test_the_ssm_parameters_that_are_not_decayed_are_there_under_their_names():
    names = {
        name.rsplit(".", 1)[-1] for name, _ in create_model("cvmh_unet_nano").named_parameters()
    }
    assert {"A_log", "D", "dt_bias"} <= names
