"""Every known data set in every layout through the whole command line, on small fakes."""

import json

import pytest

from cvmh.datasets import KNOWN
from cvmh.models.bundle import load_bundle, save_bundle

EVERY = [(known.name, layout.name) for known in KNOWN.values() for layout in known.layouts]
TINY = (
    "model.settings={widths: [8, 8, 16, 16], encoder_depths: [1, 1, 1, 1], "
    "decoder_depths: [1, 1, 1, 1], num_frequencies: 2, stem_widths: [8, 16]}"
)
SHORT = {
    "train.epochs": 1,
    "data.tile": 32,
    "data.batch": 2,
    "data.crops_per_epoch": 2,
    "data.workers": 0,
}


@pytest.fixture
def train(cvmh, fake_set, fake_sets, tmp_path):
    """Return a function that trains for one short epoch and gives the outcome."""

    def run(name, layout, *, out="run", **settings):
        complete = fake_sets.FAKES[name, layout].complete
        settings = {**SHORT, **({} if complete else {"data.partial": "true"}), **settings}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        given = ("--dataset", name, "--data", fake_set(name, layout), "--out", tmp_path / out)
        return cvmh("train", *given, "--model", "cvmh_unet_nano", "--set", TINY, *options)

    return run


@pytest.mark.parametrize(("name", "layout"), EVERY)
def test_a_network_trains_on_every_data_set_in_every_layout(train, tmp_path, name, layout):
    outcome = train(name, layout)
    assert outcome.code == 0, outcome.stderr
    card = load_bundle(tmp_path / "run" / "best.safetensors").card
    known = KNOWN[name]
    assert card.classes == known.classes
    assert (card.dataset, card.dtype) == (name, "uint8")
    assert card.band_names == known.layout(layout).band_names
    if known.gsd is not None:
        assert card.gsd == known.gsd


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        # Pictures as labels, near infrared first, four bands of which one is tagged alpha, JPEG.
        ("vaihingen", "torchgeo"),
        ("potsdam", "ssrs"),
        ("deepglobe", "official"),
        ("loveda", "torchgeo"),
    ],
)
def test_what_was_trained_is_scored(train, cvmh, fake_set, tmp_path, name, layout):
    assert train(name, layout).code == 0
    bundle, root = tmp_path / "run" / "best.safetensors", fake_set(name, layout)
    given = ("--dataset", name, "--data", root, "--split", "val", "--out", "scores")
    partial = ("--set", "data.partial=true") if name in ("loveda", "deepglobe") else ()
    outcome = cvmh("evaluate", bundle, *given, *partial)
    assert outcome.code == 0, outcome.stderr
    (scores,) = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert list(scores["classes"]) == KNOWN[name].classes.names
    assert sum(map(sum, scores["confusion"])) > 0


def test_a_bundle_of_a_folder_that_is_named_like_a_known_set_is_told_by_its_classes(
    cvmh, fake_set, tiny_bundle, tmp_path
):
    bundle = load_bundle(tiny_bundle)
    card = bundle.card.model_copy(update={"dataset": "potsdam", "splits": "own"})
    save_bundle(tmp_path / "own.safetensors", bundle.network, card)
    root = fake_set("potsdam", "isprs-rgb")
    outcome = cvmh("evaluate", "own.safetensors", "--dataset", "potsdam", "--data", root)
    assert outcome.code == 1
    assert "the bundle knows the classes field, water, roof" in outcome.stderr
