import csv
import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cvmh.classes import ClassTable
from cvmh.config import RunConfig
from cvmh.errors import ConfigError, DataError, OutputError, TrainingError
from cvmh.geo.raster import Raster, write_raster
from cvmh.models.bundle import load_bundle, read_card
from cvmh.train import run as run_module
from cvmh.train import train
from cvmh.train.losses import SegmentationLoss


def rows_of(run):
    with (run / "metrics.csv").open() as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def visible(folder):
    return {path.name for path in folder.iterdir()}


def test_a_finished_run_leaves_its_files_and_no_others(finished_run):
    assert visible(finished_run) == {
        "best.safetensors",
        "config.yaml",
        "curves.png",
        "last.ckpt",
        "metrics.csv",
        "run.json",
        "tensorboard",
    }
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))
    assert (finished_run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_record_of_a_run_says_how_it_was_made(finished_run):
    record = json.loads((finished_run / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["command"] == "cvmh train --of-the-tests"
    assert record["versions"]["torch"] == torch.__version__
    assert len(record["data_fingerprint"]) == 64
    best = max(rows_of(finished_run), key=lambda row: row["val_miou"])
    assert record["best"]["epoch"] == best["epoch"]


def test_the_settings_of_a_run_read_back_as_they_were(finished_run, make_config):
    kept = RunConfig.read(finished_run / "config.yaml")
    assert kept == make_config(data={"crops_per_epoch": 32}, train={"epochs": 8})


def test_an_easy_data_set_is_learnt(finished_run):
    rows = rows_of(finished_run)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] / 2
    assert rows[-1]["val_miou"] > 0.9


def test_the_bundle_carries_what_prediction_needs(finished_run, make_config):
    card = read_card(finished_run / "best.safetensors")
    config = make_config()
    assert (card.model, card.settings) == (config.model.name, config.model.settings)
    assert card.classes.names == ["field", "water", "roof"]
    assert card.band_names == ("red", "green", "blue")
    assert (card.dtype, card.tile) == ("uint8", 32)
    # Metres on the ground, which are longer than those of the UTM grid here.
    assert card.gsd == pytest.approx(0.5 / 0.9996, rel=1e-6)
    assert card.splits == "own"
    assert (card.train_split, card.val_split) == ("train", "val")
    best = max(row["val_miou"] for row in rows_of(finished_run))
    assert card.scores["miou"] == pytest.approx(best, rel=1e-5)


def test_the_statistics_of_the_bundle_are_those_of_the_training_images(finished_run, easy_data):
    pixels = np.concatenate(
        [Raster(easy_data / "images" / f"s{n}.tif").read().reshape(3, -1) for n in (0, 1)], axis=1
    )
    card = read_card(finished_run / "best.safetensors")
    assert card.mean == pytest.approx(pixels.mean(axis=1))
    assert card.std == pytest.approx(pixels.std(axis=1))


def test_the_bundle_is_the_network_of_the_best_epoch_and_not_of_the_last(
    tmp_path, make_config, monkeypatch
):
    weights, mious = [], iter([0.2, 0.6, 0.4])
    scored = run_module.SegmentationModule.on_validation_epoch_end

    def pretend(module):
        scored(module)
        module.scores = module.scores.model_copy(update={"miou": next(mious)})
        weights.append({k: v.clone() for k, v in module.network.state_dict().items()})

    monkeypatch.setattr(run_module.SegmentationModule, "on_validation_epoch_end", pretend)
    result = train(make_config(train={"epochs": 3}), tmp_path / "run", device="cpu")
    kept = load_file(result.bundle)
    assert all(torch.equal(kept[name], weights[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], weights[2][name]) for name in kept)
    assert read_card(result.bundle).scores["miou"] == 0.6


def test_every_epoch_is_reported_once_with_its_scores(tmp_path, make_config):
    reported, steps = [], []
    train(
        make_config(),
        tmp_path / "run",
        device="cpu",
        report=reported.append,
        progress=lambda *step: steps.append(step),
    )
    assert [row["epoch"] for row in reported] == [1, 2]
    assert {"train_loss", "val_loss", "val_miou", "val_mf1", "val_oa"} <= reported[0].keys()
    assert [step for step in steps if step[0] == "train"] == [
        ("train", done, 4, "steps") for done in range(4)
    ]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({}, r"run is not empty; choose another --out, or continue it with --resume"),
        ({"resume": True}, r"run holds no run to resume"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, make_config, call, match):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises((OutputError, ConfigError), match=match):
        train(make_config(), tmp_path / "run", **call)
    assert visible(tmp_path / "run") == {"notes.txt"}


def test_nothing_is_made_when_the_data_are_wrong(tmp_path, make_config, make_data):
    root = make_data(splits=("train", "test"))
    with pytest.raises(
        DataError, match=r"no image is in split 'val' to validate on; there are: test, train"
    ):
        train(make_config(root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_epochs_before(
    tmp_path, make_config, monkeypatch, what
):
    forward, rows = SegmentationLoss.forward, []

    def poisoned(self, logits, labels):
        loss = forward(self, logits, labels)
        if not rows:
            return loss
        # The root of zero is finite, its slope is not.
        return loss * float("nan") if what == "loss" else loss + (logits * 0).sum().sqrt()

    monkeypatch.setattr(SegmentationLoss, "forward", poisoned)
    with pytest.raises(TrainingError, match=rf"{what} is not finite .*step 3 of epoch 2") as caught:
        train(make_config(), tmp_path / "run", device="cpu", report=rows.append)
    if what == "loss":
        assert "crops [8, 9, 10, 11]" in str(caught.value)
    assert "lower train.learning_rate" in str(caught.value)
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_patience_ends_a_run_that_does_not_get_better(tmp_path, make_config):
    frozen = {"epochs": 9, "patience": 2, "learning_rate": 1e-30, "final_learning_rate": 0}
    result = train(make_config(train=frozen), tmp_path / "run", device="cpu")
    assert result.epochs < 9
    rows = rows_of(tmp_path / "run")
    assert all(row["val_miou"] <= rows[-3]["val_miou"] for row in rows[-2:])


def test_minutes_end_a_run_in_time_in_the_middle_of_an_epoch_with_a_bundle(tmp_path, make_config):
    config = make_config(
        data={"crops_per_epoch": 4_000_000}, train={"minutes": 0.03, "warmup": 0.5}
    )
    units = set()
    started = time.monotonic()
    result = train(
        config,
        tmp_path / "run",
        device="cpu",
        progress=lambda stage, done, total, unit: units.add(unit) if stage == "train" else None,
    )
    assert 1.8 <= time.monotonic() - started < 20
    assert 0 < result.steps < 1_000_000 and result.epochs == 1
    assert units == {"s"}
    assert read_card(result.bundle).scores["miou"] == pytest.approx(result.scores["val_miou"])


def test_a_run_in_bfloat16_on_a_cpu_leaves_float32_weights(tmp_path, make_config):
    config = make_config(train={"epochs": 1, "precision": "bf16"})
    result = train(config, tmp_path / "run", device="cpu")
    assert np.isfinite(result.scores["train_loss"])
    assert {tensor.dtype for tensor in load_file(result.bundle).values()} <= {
        torch.float32,
        torch.int64,
    }


def test_float16_on_a_cpu_is_refused(tmp_path, make_config):
    with pytest.raises(ConfigError, match=r"train.precision=16 needs a GPU; use 32 or bf16"):
        train(make_config(train={"precision": "16"}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path, make_config):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder .*/file/run cannot be made \(Not a directory"):
        train(make_config(), tmp_path / "file" / "run", device="cpu")


def test_a_training_split_without_any_label_is_refused_before_a_run_begins(
    tmp_path, make_config, make_data
):
    root = make_data()
    for number in (0, 1):
        write_raster(root / "masks" / f"s{number}.tif", np.full((64, 64), 255, "uint8"))
    with pytest.raises(DataError, match="split 'train' must have labelled pixels"):
        train(make_config(root, train={"epochs": 1}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_crop_without_any_label_gives_finite_losses(tmp_path, make_config, make_data):
    root = make_data()
    for number in (0, 1):
        label = np.full((64, 64), 255, "uint8")
        label[0, number] = 1
        write_raster(root / "masks" / f"s{number}.tif", label)
    result = train(make_config(root, train={"epochs": 1}), tmp_path / "run", device="cpu")
    assert np.isfinite(result.scores["train_loss"])
    assert np.isfinite(result.scores["val_loss"])


def test_the_classes_and_not_the_labels_decide_how_many_outputs_the_network_has(
    tmp_path, make_config, make_data
):
    root = make_data()
    entries = json.loads((root / "classes.json").read_text())
    entries.append({"id": 3, "name": "snow", "rgb": [255, 255, 255]})
    (root / "classes.json").write_text(json.dumps(entries))
    result = train(make_config(root, train={"epochs": 1}), tmp_path / "run", device="cpu")
    bundle = load_bundle(result.bundle)
    assert bundle.card.classes == ClassTable.from_json(entries)
    assert bundle.network(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 32, 32)
