"""Published files of PlainMamba, made: they load with or without a pyramid, or are refused."""

import pytest
import torch

from cvmh.errors import WeightsError
from cvmh.models.encoders import create_encoder
from cvmh.models.weights.loading import load_weights

SIZES = {"width": 16, "depth": 4, "grid": 2}


def tiny(**settings):
    torch.manual_seed(1)
    return create_encoder("plainmamba_l1", **{**SIZES, **settings}).eval()


@pytest.fixture
def write(tmp_path, published, drawn):
    """Return a function that writes a file and gives its path."""

    def make(change=lambda tensors: tensors):
        tensors = change(drawn(published.plainmamba_of(16, 4, 1, True, grid=2)))
        path = tmp_path / "l1.pth"
        torch.save({"state_dict": tensors, "meta": {"epoch": 300}}, path)
        return path

    return make


def test_all_but_the_pyramid_comes_from_the_file(write):
    encoder, plain = tiny(), tiny(pyramid=False, out_indices=(3,))
    reports = [load_weights(network, write()) for network in (encoder, plain)]
    ours, theirs = encoder.state_dict(), plain.state_dict()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
    assert reports[0].loaded == reports[1].loaded == len(theirs)
    assert set(reports[0].random) == {"neck_norms", "neck_levels"}
    assert not reports[1].random


def test_layers_that_no_map_needs_are_left_out(write):
    encoder = tiny(out_indices=(0, 1))
    report = load_weights(encoder, write())
    assert report.dropped["layers"] > 0
    assert set(report.random) == {"neck_norms", "neck_levels"}


def test_averages_of_the_training_are_left_alone(write):
    def with_averages(tensors):
        averages = {"ema_" + key.replace(".", "_"): value + 1 for key, value in tensors.items()}
        return {**tensors, **averages}

    first, second = tiny(), tiny()
    load_weights(first, write())
    load_weights(second, write(with_averages))
    assert all(torch.equal(t, second.state_dict()[k]) for k, t in first.state_dict().items())


def test_a_file_without_a_layer_is_refused(write):
    def without_a_layer(tensors):
        return {k: t for k, t in tensors.items() if not k.startswith("backbone.layers.2.")}

    with pytest.raises(WeightsError, match="missing"):
        load_weights(tiny(), write(without_a_layer))


def test_weights_of_another_variant_say_which_they_are(tmp_path, published, flat):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": flat(published.plainmamba("plainmamba_l2"))}, path)
    with torch.device("meta"):
        encoder = create_encoder("plainmamba_l3")
    with pytest.raises(WeightsError, match="are of 'plainmamba_l2'"):
        load_weights(encoder, path)


def test_no_weights_of_vim2_have_been_published(write):
    encoder = create_encoder("vim2_tiny", width=8, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="published"):
        load_weights(encoder, write())
