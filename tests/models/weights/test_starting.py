"""Networks of all kinds started from published weights."""

import pytest
import torch
from torch import nn

from cvmh.errors import ConfigError, WeightsError
from cvmh.models.encoders import Encoder
from cvmh.models.weights import finding
from cvmh.models.weights.catalogue import CATALOGUE
from cvmh.models.weights.finding import Found
from cvmh.models.weights.starting import start_from_published
from cvmh.models.zoo import create_model

RGB = ("red", "green", "blue")
DEPTHS = (1, 1, 1, 1)


@pytest.fixture
def file(tmp_path, published, flat):
    """Return the path of a file of a VMamba of few blocks."""
    path = tmp_path / "w.pth"
    torch.save({"model": flat(published.vmamba_of("v2", 96, 1, DEPTHS))}, path)
    return path


def short_network(**more):
    settings = {"encoder_settings": {"depths": DEPTHS}}
    return create_model("smp:fpn:cvmh-vmamba_tiny_s1l8", **settings, **more)


def test_the_encoder_in_a_network_of_smp_gets_them_and_the_decoder_stays(file):
    network = short_network(bands=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = start_from_published(network, str(file), band_names=("nir", *RGB))
    encoder = next(module for module in network.modules() if isinstance(module, Encoder))
    state = network.state_dict()
    taken = {key for key in state if not torch.equal(state[key], before[key])}
    assert taken and all(key.startswith("encoder.") for key in taken)
    assert report.random == {"norms": 6}
    assert report.loaded == len(encoder.state_dict()) - 6
    assert report.new_bands == ("nir",)
    assert network(torch.zeros(1, 4, 33, 47)).isfinite().all()


def test_a_name_tells_address_and_licence(file, monkeypatch):
    published = CATALOGUE["vmamba_tiny_s1l8"]
    monkeypatch.setattr(
        "cvmh.models.weights.starting.find_weights", lambda name, **given: Found(file, published)
    )
    report = start_from_published(short_network(), "vmamba_tiny_s1l8", band_names=RGB)
    assert (report.licence, report.address) == ("MIT", published.address)
    assert report.describe().endswith("licence of the weights: MIT")
    assert report.to_json()["licence"] == "MIT"


def test_a_name_of_another_encoder_is_refused_before_it_is_fetched(monkeypatch):
    monkeypatch.setattr(finding, "fetch", lambda *given, **named: pytest.fail("fetched"))
    network = create_model("smp:fpn:cvmh-vssd_micro")
    said = r"'vssd_tiny_mesa' are of 'vssd_tiny', the network takes those of vssd_micro"
    with pytest.raises(WeightsError, match=said):
        start_from_published(network, "vssd_tiny_mesa", band_names=RGB)


def test_networks_without_an_encoder_of_ours_say_what_would_do(file):
    with pytest.raises(ConfigError, match=r"Conv2d has none; train smp:ARCH:cvmh-NAME or cvmh_u"):
        start_from_published(nn.Conv2d(3, 3, 1), str(file), band_names=RGB)


def test_encoders_without_published_weights_say_so(file):
    network = create_model("smp:fpn:cvmh-vim2_tiny")
    with pytest.raises(ConfigError, match=r"no weights of ViM2 have been published"):
        start_from_published(network, str(file), band_names=RGB)
