"""Bundles as teachers of runs whose bands, scaling, classes and pixels may be others."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cvmh.classes import ClassTable, SegClass
from cvmh.datasets import DataSummary
from cvmh.errors import BundleError, ConfigError
from cvmh.models.bundle import Bundle, BundleCard, load_bundle, save_bundle
from cvmh.models.zoo import create_model
from cvmh.train import train
from cvmh.train.teacher import fit_teacher

RGB = ("red", "green", "blue")


def table(*names):
    return ClassTable(
        tuple(SegClass(id=i, name=name, rgb=(i, i, i)) for i, name in enumerate(names))
    )


def summary(**changes):
    facts = {
        "bands": (1, 2, 3, 4),
        "alpha": None,
        "band_names": ("nir", "red", "green", "blue"),
        "dtype": "uint16",
        "mean": (900.0, 300.0, 400.0, 500.0),
        "std": (200.0, 50.0, 60.0, 70.0),
        "gsd": 10.0,
        "class_pixels": (1, 1, 1),
        "fingerprint": "",
    }
    return DataSummary(**{**facts, **changes})


def bundle(network, **changes):
    facts = {
        "model": "any",
        "classes": table("field", "water", "roof"),
        "band_names": ("blue", "nir"),
        "dtype": "uint16",
        "mean": (450.0, 1000.0),
        "std": (35.0, 400.0),
        "gsd": 10.0,
    }
    return Bundle(network=network, card=BundleCard(**{**facts, **changes}), path="teacher")


class Listening(nn.Module):
    """Keeps the images that it is shown; its logits are 0, 1, 2."""

    def forward(self, images):
        self.shown = images
        return torch.arange(3.0)[None, :, None, None].expand(len(images), 3, *images.shape[2:])


def test_a_teacher_sees_its_bands_in_its_order_in_its_scaling():
    rng = np.random.default_rng(0)
    values = rng.integers(1, 2000, (2, 4, 6, 5)).astype("float64")
    data = summary()
    ours = (values - np.reshape(data.mean, (4, 1, 1))) / np.reshape(data.std, (4, 1, 1))
    ours[:, :, 0] = 0
    theirs = np.stack([(values[:, 3] - 450) / 35, (values[:, 0] - 1000) / 400], axis=1)
    theirs[:, :, 0] = 0
    network = Listening()
    fit_teacher(bundle(network), data, table("field", "water", "roof"))(torch.tensor(ours).float())
    np.testing.assert_allclose(network.shown, theirs, rtol=0, atol=1e-4)


def test_a_teacher_in_the_scaling_of_the_run_sees_the_same_bits():
    data = summary()
    network = Listening()
    card = {"band_names": data.band_names, "mean": data.mean, "std": data.std}
    images = torch.randn(1, 4, 8, 8)
    fit_teacher(bundle(network, **card), data, table("field", "water", "roof"))(images)
    assert network.shown.equal(images)


def test_classes_are_matched_by_their_names():
    teacher = fit_teacher(bundle(Listening()), summary(), table("roof", "field", "water"))
    assert teacher(torch.randn(1, 4, 8, 8))[0, :, 0, 0].tolist() == [2, 0, 1]


def test_pixels_are_resampled_for_a_teacher_that_knows_other_ones():
    network = Listening()
    teacher = fit_teacher(bundle(network, gsd=2.5), summary(), table("field", "water", "roof"))
    found = teacher(torch.randn(1, 4, 20, 24))
    # Four times as large, in whole steps of 32.
    assert network.shown.shape == (1, 2, 64, 96)
    assert found.shape == (1, 3, 20, 24)
    teacher = fit_teacher(bundle(network, gsd=9.0), summary(), table("field", "water", "roof"))
    teacher(torch.randn(1, 4, 20, 24))
    assert network.shown.shape == (1, 2, 20, 24)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"band_names": ("blue", "swir")}, r"needs the bands blue, swir, .* missing: swir"),
        ({"dtype": "uint8"}, r"was trained on uint8 and the run's images are uint16"),
        ({"classes": table("field", "snow")}, r"knows the classes field, snow, and the run has"),
    ],
    ids=["bands", "dtype", "classes"],
)
def test_a_bundle_that_cannot_teach_the_run_is_refused(changes, match):
    with pytest.raises(ConfigError, match=match) as caught:
        fit_teacher(bundle(Listening(), **changes), summary(), table("field", "water", "roof"))
    assert "\n" not in str(caught.value)


def taught_by(bundle_path, make_config, *, distill=None, **groups):
    settings = {"epochs": 1, **groups.pop("train", {})}
    settings["distill"] = {"teacher": str(bundle_path), **(distill or {})}
    return make_config(train=settings, **groups)


def test_a_run_without_labels_of_its_own_learns_what_its_teacher_knows(
    tmp_path, make_config, finished_run, caplog
):
    caplog.set_level("INFO", logger="cvmh")
    teacher = finished_run / "best.safetensors"
    groups = {
        "data": {"crops_per_epoch": 32},
        "train": {"epochs": 5},
        "augment": {"cutmix": 0.5, "mosaic": 0.25},
    }
    config = taught_by(teacher, make_config, distill={"weight": 1.0}, **groups)
    result = train(config, tmp_path / "run", device="cpu")
    assert result.scores["val_miou"] > 0.8
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["teacher"]["bundle"] == str(teacher)
    assert len(state["teacher"]["sha256"]) == 64
    assert f"teacher {teacher}: cvmh_unet_nano, hard labels of weight 1" in caplog.text
    # Nothing of the teacher is kept.
    assert load_file(result.bundle).keys() == load_file(teacher).keys()
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    assert not [key for key in checkpoint["state_dict"] if "teacher" in key or "distill" in key]


def test_a_network_starts_with_the_weights_that_it_has_without_a_teacher(
    tmp_path, make_config, tiny_bundle
):
    still = {"learning_rate": 1e-30, "final_learning_rate": 0, "epochs": 1, "weight_decay": 0}
    taught = train(taught_by(tiny_bundle, make_config, train=still), tmp_path / "a", device="cpu")
    alone = train(make_config(train=still), tmp_path / "b", device="cpu")
    one, other = load_file(taught.bundle), load_file(alone.bundle)
    weights = [key for key in one if key.endswith("weight")]
    assert all(torch.allclose(one[key], other[key], rtol=0, atol=1e-20) for key in weights)


def test_a_resumed_run_with_a_teacher_ends_with_the_same_bits(
    tmp_path, make_config, tiny_bundle, same_weights
):
    groups = {"train": {"epochs": 3, "ema": 0.9, "accumulate": 2}, "augment": {"cutmix": 0.5}}
    config = taught_by(tiny_bundle, make_config, distill={"kind": "soft"}, **groups)
    straight = train(config, tmp_path / "straight", device="cpu")
    rows = []

    def stop_in_second_epoch(row):
        rows.append(row)
        if len(rows) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", report=stop_in_second_epoch)
    resumed = train(config, tmp_path / "run", device="cpu", resume=True)
    assert same_weights(straight.bundle, resumed.bundle)
    assert "teacher" in json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_run_does_not_go_on_with_another_teacher(
    tmp_path, make_config, tiny_bundle, finished_run
):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(tiny_bundle.read_bytes())
    config = taught_by(teacher, make_config, train={"epochs": 2})
    rows = []

    def stop_in_second_epoch(row):
        rows.append(row)
        if len(rows) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", report=stop_in_second_epoch)
    teacher.write_bytes((finished_run / "best.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="is not the bundle that the run began with"):
        train(config, tmp_path / "run", device="cpu", resume=True)


@pytest.fixture
def smp_bundle(request, tmp_path):
    settings = {"arch": request.param}
    network = create_model("unet_resnet18", bands=3, num_classes=3, **settings)
    card = BundleCard(
        model="unet_resnet18",
        settings=settings,
        classes=table("roof", "field", "water"),
        band_names=RGB,
        dtype="uint8",
        mean=(100.0,) * 3,
        std=(50.0,) * 3,
    )
    save_bundle(tmp_path / "smp.safetensors", network, card)
    return tmp_path / "smp.safetensors"


@pytest.mark.parametrize("smp_bundle", ["linknet"], indirect=True)
def test_a_network_of_smp_teaches_one_of_ours_from_tiles_of_any_size(
    tmp_path, make_config, smp_bundle
):
    config = taught_by(smp_bundle, make_config, data={"tile": 40})
    result = train(config, tmp_path / "run", device="cpu")
    assert load_bundle(result.bundle).card.model == "cvmh_unet_nano"


@pytest.mark.parametrize(
    ("distill", "error", "match"),
    [
        ({"teacher": "nowhere.safetensors"}, BundleError, "nowhere.safetensors does not exist"),
        ({"teacher": __file__}, BundleError, "is not a bundle"),
        ({"weight": 0.3}, ConfigError, "train.distill needs a teacher"),
        ({"teacher": "a", "temperature": 2.0}, ConfigError, "temperature is of kind 'soft'"),
        ({"teacher": "a", "kind": "warm"}, ConfigError, "'train.distill.kind'"),
        ({"weights": 0.3}, ConfigError, "did you mean 'train.distill.weight'"),
    ],
)
def test_a_wrong_teacher_is_told_in_one_sentence_before_anything_is_made(
    tmp_path, make_config, distill, error, match
):
    with pytest.raises(error, match=match) as caught:
        train(make_config(train={"distill": distill}), tmp_path / "run", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
