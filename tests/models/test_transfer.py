import pytest
import torch

from cvmh.classes import ClassTable, SegClass
from cvmh.errors import BundleError, ConfigError
from cvmh.geo.bands import match_names
from cvmh.models.bundle import BundleCard, load_bundle, save_bundle
from cvmh.models.transfer import freeze_encoder, start_from
from cvmh.models.zoo import create_model

TINY = {
    "widths": [8, 8, 16, 16],
    "encoder_depths": [1, 1, 1, 1],
    "decoder_depths": [1, 1, 1, 1],
    "num_frequencies": 2,
}
# A convolutional stem, a patch embedding, a network of smp, and one with an encoder of ours.
NETWORKS = {
    "conv": ("cvmh_unet_nano", {**TINY, "stem_widths": [8, 16]}, "stem.at_full.0.weight"),
    "patch": ("cvmh_unet", TINY, "stem.project.weight"),
    "smp": ("unet_resnet18", {}, "encoder.conv1.weight"),
    "ours": (
        "smp:unet:cvmh-vssd_micro",
        {"encoder_settings": {"depths": [1, 1, 1, 1]}},
        "encoder.model.stem.first.conv.weight",
    ),
    # It cannot be built without memory.
    "mit": ("smp:unet:mit_b0", {}, "encoder.patch_embed1.proj.weight"),
}
RGB = ("red", "green", "blue")


def table(*names):
    return ClassTable(
        tuple(SegClass(id=i, name=name, rgb=(i, i, i)) for i, name in enumerate(names))
    )


CLASSES = table("field", "water", "roof")


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tmp_path_factory):
    """Return the path of a bundle, its network's name and settings, and the name of its stem."""
    name, settings, stem = NETWORKS[request.param]
    path = tmp_path_factory.mktemp("trained") / f"{name.replace(':', '-')}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_model(name, bands=3, num_classes=3, **settings)
        # Statistics of batch norms that are not those of a new network.
        with torch.no_grad():
            network.train()(torch.randn(2, 3, 64, 64))
    card = BundleCard(
        model=name,
        settings=settings,
        classes=CLASSES,
        band_names=RGB,
        dtype="uint8",
        mean=(1.0,) * 3,
        std=(1.0,) * 3,
    )
    save_bundle(path, network, card)
    return path, name, settings, stem


def transferred(trained, *, band_names=RGB, classes=CLASSES):
    path, name, settings, _ = trained
    network = create_model(name, bands=len(band_names), num_classes=len(classes), **settings).eval()
    report = start_from(
        network, path, name=name, settings=settings, band_names=band_names, classes=classes
    )
    return network, report


def draw(bands):
    return torch.randn(1, bands, 64, 64, generator=torch.Generator().manual_seed(1))


def predict(network, image):
    with torch.no_grad():
        return network.eval()(image)


def test_the_same_bands_and_classes_predict_identically(trained):
    network, report = transferred(trained)
    image = draw(3)
    expected = predict(load_bundle(trained[0]).network, image)
    torch.testing.assert_close(predict(network, image), expected, rtol=0, atol=0)
    assert report.copied == len(network.state_dict())
    assert report.adapted == report.random == report.new_bands == report.new_classes == ()
    assert report.describe() == f"weights from {trained[0]}: {report.copied} tensors copied"


def test_bands_in_another_order_predict_identically(trained):
    network, report = transferred(trained, band_names=("Blue", "red", "green"))
    image = draw(3)
    expected = predict(load_bundle(trained[0]).network, image)
    found = predict(network, image[:, [2, 0, 1]])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert report.adapted == (trained[3],)
    assert report.new_bands == ()


@pytest.mark.parametrize("band_names", [(*RGB, "nir"), ("nir", "red", "green", "swir", "blue")])
def test_a_new_band_answers_as_the_mean_of_the_others_and_the_stem_keeps_its_size(
    trained, band_names
):
    network, report = transferred(trained, band_names=band_names)
    old = load_bundle(trained[0]).network.state_dict()[trained[3]]
    new = network.state_dict()[trained[3]]
    number, scale = len(band_names), 3 / len(band_names)
    for position, band in enumerate(band_names):
        start = old[:, RGB.index(band)] if band in RGB else old.sum(dim=1) / 3
        torch.testing.assert_close(new[:, position], start * scale)
    # All bands alike: what the stem answers is what it was.
    grey = draw(1)
    expected = predict(load_bundle(trained[0]).network, grey.expand(-1, 3, -1, -1))
    found = predict(network, grey.expand(-1, number, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert report.new_bands == tuple(band for band in band_names if band not in RGB)
    assert "new bands from the mean of the others: nir" in report.describe()


def test_fewer_bands_keep_their_weights_and_the_size_of_the_answer(trained):
    network, report = transferred(trained, band_names=("green",))
    old = load_bundle(trained[0]).network.state_dict()[trained[3]]
    torch.testing.assert_close(network.state_dict()[trained[3]], old[:, 1:2] * 3)
    assert report.known_bands == ("green",)


def test_other_classes_keep_the_outputs_of_those_of_the_same_name(trained):
    network, report = transferred(trained, classes=table("roof", "snow", "field", "road"))
    image = draw(3)
    expected = predict(load_bundle(trained[0]).network, image)
    found = predict(network, image)
    torch.testing.assert_close(found[:, 0], expected[:, 2], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[:, 2], expected[:, 0], rtol=1e-3, atol=1e-4)
    assert report.known_classes == ("roof", "field")
    assert report.new_classes == ("snow", "road")
    assert len(report.adapted) == 2 and report.random == ()
    assert report.describe().endswith("classes that start anew: snow, road")


def test_with_no_class_of_the_same_name_the_head_stays_random(trained):
    start = torch.random.get_rng_state()
    network, report = transferred(trained, classes=table("snow", "road", "sand"))
    torch.random.set_rng_state(start)
    fresh = create_model(trained[1], bands=3, num_classes=3, **trained[2]).state_dict()
    old, new = load_bundle(trained[0]).network.state_dict(), network.state_dict()
    assert len(report.random) == 2
    for key in new:
        torch.testing.assert_close(new[key], (fresh if key in report.random else old)[key])
    assert f"left random: {', '.join(report.random)}" in report.describe()


def test_a_bundle_of_another_network_is_an_error_that_names_both(trained, tiny_bundle):
    path, name, _, _ = trained
    network = create_model("cvmh_unet_small", bands=3, num_classes=3)
    with pytest.raises(BundleError, match=rf"is of network '{name}', the run trains 'cvmh_unet_sm"):
        start_from(
            network, path, name="cvmh_unet_small", settings={}, band_names=RGB, classes=CLASSES
        )


def test_settings_that_differ_are_named_with_both_values(tmp_path, tiny_bundle):
    settings = load_bundle(tiny_bundle).card.settings
    other = {**settings, "d_state": 3, "drop_path": 0.3}
    network = create_model("cvmh_unet_nano", **other)
    match = r"of 'cvmh_unet_nano' with d_state 1, the run trains 'cvmh_unet_nano' with d_state 3;"
    with pytest.raises(BundleError, match=match):
        start_from(
            network,
            tiny_bundle,
            name="cvmh_unet_nano",
            settings=other,
            band_names=RGB,
            classes=CLASSES,
        )


def test_settings_of_training_and_defaults_that_are_written_out_do_not_count(tiny_bundle):
    settings = load_bundle(tiny_bundle).card.settings
    other = {**settings, "drop_path": 0.3, "fusion": "mfms"}
    network = create_model("cvmh_unet_nano", num_classes=3, **other)
    report = start_from(
        network,
        tiny_bundle,
        name="cvmh_unet_nano",
        settings=other,
        band_names=RGB,
        classes=CLASSES,
    )
    assert report.copied == len(network.state_dict())


def test_pruning_in_the_encoder_of_a_network_of_smp_starts_from_a_dense_bundle(tmp_path):
    name, sizes = "smp:unet:cvmh-plainmamba_l1", {"depth": 4}
    settings = {"encoder_settings": {**sizes, "drop_path": 0.0, "pruning": {"layers": [2]}}}
    dense = create_model(name, num_classes=3, encoder_settings=sizes)
    card = BundleCard(
        model=name,
        settings={"encoder_settings": sizes},
        classes=CLASSES,
        band_names=RGB,
        dtype="uint8",
        mean=(1.0,) * 3,
        std=(1.0,) * 3,
    )
    path = tmp_path / "dense.safetensors"
    save_bundle(path, dense, card)
    network = create_model(name, num_classes=3, **settings)
    report = start_from(
        network, path, name=name, settings=settings, band_names=RGB, classes=CLASSES
    )
    assert report.copied == len(network.state_dict())
    other = {"encoder_settings": {**settings["encoder_settings"], "num_convs": 2}}
    with pytest.raises(BundleError, match="with encoder_settings"):
        start_from(network, path, name=name, settings=other, band_names=RGB, classes=CLASSES)


def test_a_frozen_encoder_has_no_gradients_and_keeps_its_statistics(trained):
    network, _ = transferred(trained)
    network.train()
    num_trained, num_all = freeze_encoder(network)
    assert 0 < num_trained < num_all
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    after = network.state_dict()
    frozen = [key for key in after if key.split(".")[0] in ("stem", "encoder", "merge")]
    assert frozen and all(torch.equal(before[key], after[key]) for key in frozen)
    assert any(not torch.equal(before[key], after[key]) for key in after)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name


def test_a_network_without_an_encoder_cannot_freeze_it():
    with pytest.raises(ConfigError, match=r"needs a network with an encoder, Conv2d has none"):
        freeze_encoder(torch.nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        (("a", "b"), ("b", "a"), [1, 0]),
        (("near-infrared", "Red"), ("red", "green", "nir"), [2, 0]),
        # Names that say nothing are matched in order, but only where the counts agree.
        (("band 1", "band 2"), ("red", "green"), [0, 1]),
        (("band 1", "red"), ("red", "green"), [1, 0]),
        (("band 1", "band 2"), ("red", "green", "blue"), [None, None]),
        # A band that says it shows something else is never taken.
        (("nir", "red", "green"), RGB, [None, 0, 1]),
    ],
)
def test_bands_are_matched_by_name_and_by_order_where_names_say_nothing(wanted, known, expected):
    assert match_names(wanted, known) == expected
