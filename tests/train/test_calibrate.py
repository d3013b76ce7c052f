"""The temperature against other ways to find it, and what calibrating leaves in a bundle."""

import signal

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from cvmh.config import DataSettings
from cvmh.datasets import open_data, prepare_training
from cvmh.errors import TrainingError
from cvmh.geo.raster import write_raster
from cvmh.metrics.calibration import ReliabilityCounter
from cvmh.models.bundle import load_bundle, read_card, save_bundle
from cvmh.report.info import describe
from cvmh.train import calibrate as calibrate_module
from cvmh.train import train
from cvmh.train.calibrate import (
    COLDEST,
    HOTTEST,
    PixelSample,
    calibrate,
    fit_temperature,
)

CPU = torch.device("cpu")


def draw_logits(seed, num_pixels=20_000, num_classes=5):
    """Return logits that are calibrated: labels are drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_pixels, num_classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    draws = rng.random(num_pixels)[:, None]
    labels = (scores.cumsum(axis=1) < draws).sum(axis=1).clip(0, num_classes - 1)
    return logits, labels


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_calibrated_logits(factor):
    logits, labels = draw_logits(1, num_pixels=100_000)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_where_torch_has_its_smallest_cross_entropy(seed):
    logits, labels = draw_logits(seed, num_pixels=3000)
    logits = logits * 2.5 + 100
    found = fit_temperature(logits, labels)

    def loss(logarithm):
        scaled = torch.from_numpy(logits) / np.exp(logarithm)
        return float(nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)
    assert loss(np.log(found)) < min(loss(np.log(found * 1.01)), loss(np.log(found / 1.01)))


def test_calibrated_logits_have_a_smaller_error_after_than_before():
    logits, labels = draw_logits(2)
    tiles = PixelSample(1, len(labels), 5)
    as_tile = torch.from_numpy((logits * 3).astype("float32").T.reshape(5, 100, 200))
    tiles.add(0, as_tile, labels.reshape(100, 200))
    fitted = tiles.fit("val")
    found = fitted["calibration"]
    assert fitted["temperature"] == pytest.approx(3, rel=0.05)
    assert found.after.ece < 0.02 < 0.1 < found.before.ece
    assert found.nll_after < found.nll_before
    assert found.pixels == len(labels)
    counter = ReliabilityCounter(5)
    scores = torch.softmax(torch.from_numpy(logits * 3), dim=1).max(dim=1).values.numpy()
    counter.add(labels, logits.argmax(axis=1), scores)
    assert found.before.ece == pytest.approx(counter.overall().ece, abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "end"), [("right", COLDEST), ("wrong", HOTTEST)], ids=["never wrong", "always wrong"]
)
def test_the_temperature_stays_within_its_bounds(labels, end):
    logits, _ = draw_logits(3, num_pixels=500)
    chosen = logits.argmax(axis=1) if labels == "right" else logits.argmin(axis=1)
    assert fit_temperature(logits, chosen) == end


def test_scores_that_are_all_equal_have_no_temperature_to_find():
    assert fit_temperature(np.full((10, 3), 4.0), np.zeros(10, dtype=int)) == 1


@pytest.mark.parametrize(
    ("num_tiles", "side", "num_classes"), [(3, 32, 3), (40, 256, 6), (5000, 64, 16), (9, 100, 250)]
)
def test_the_sample_of_pixels_is_bounded_and_spread_over_rows_and_columns(
    monkeypatch, num_tiles, side, num_classes
):
    monkeypatch.setattr(calibrate_module, "MOST_LOGITS", 200_000)
    sample = PixelSample(num_tiles, side * side, num_classes)
    nothing = torch.zeros(num_classes, side, side)
    places = np.arange(side * side).reshape(side, side)
    taken = []
    for index in range(num_tiles):
        sample.add(index, nothing, np.where(places >= 0, 0, 0))
        chosen = np.arange(-index * side * side % sample._step, side * side, sample._step)
        taken.append(chosen)
    assert sum(map(len, sample._labels)) == sum(map(len, taken))
    assert sum(map(len, taken)) * num_classes <= 200_000 + num_classes
    columns = np.concatenate(taken) % side
    rows = np.concatenate(taken) // side
    few = len(columns) / side
    for found in (columns, rows):
        hits = np.bincount(found, minlength=side)
        assert hits.min() >= few * 0.5 - 1 and hits.max() <= few * 1.5 + 1


def test_a_sample_does_not_depend_on_the_order_of_the_tiles():
    logits, labels = draw_logits(4, num_pixels=4 * 64)
    tiles = [
        (n, torch.from_numpy(logits[n * 64 : n * 64 + 64].astype("float32").T.reshape(5, 8, 8)))
        for n in range(4)
    ]
    found = []
    for order in (tiles, tiles[::-1]):
        sample = PixelSample(4, 64, 5)
        for number, tile in order:
            sample.add(number, tile, labels[number * 64 : number * 64 + 64].reshape(8, 8))
        found.append(sample.fit("val")["temperature"])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


KILLED = """
import os, signal, sys
from pathlib import Path
from cvmh.config import RunConfig
from cvmh.train import train

def kill(stage, done, total, unit):
    if stage == "calibrate":
        os.kill(os.getpid(), signal.SIGKILL)

train(RunConfig.read(Path(sys.argv[1])), Path(sys.argv[2]), device="cpu", progress=kill)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [{"epochs": 2}, {"minutes": 0.02}], ids=["epochs", "minutes"])
def test_a_run_killed_while_calibrating_calibrates_when_resumed_and_trains_no_step_more(
    tmp_path, make_config, start_python, limit, same_weights
):
    config, run = make_config(train=limit), tmp_path / "run"
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    process = start_python("-c", KILLED, tmp_path / "config.yaml", run)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, stderr
    assert not (run / "best.safetensors").exists()
    assert describe(run)["state"] == "not finished; continue it with --resume"
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes((run / "best.unfinished.safetensors").read_bytes())
    assert read_card(kept).calibration is None
    history = (run / "metrics.csv").read_text()
    stages = set()
    result = train(
        config, run, device="cpu", resume=True, progress=lambda stage, *_: stages.add(stage)
    )
    assert "train" not in stages and "calibrate" in stages
    assert (run / "metrics.csv").read_text() == history
    assert result.epochs == len(history.splitlines()) - 1 and result.steps > 0
    assert read_card(result.bundle).calibration is not None
    assert same_weights(result.bundle, kept)
    assert describe(run)["state"] == "finished"


def test_a_run_leaves_a_calibrated_bundle(finished_run):
    card = read_card(finished_run / "best.safetensors")
    assert card.calibration.split == card.area_sample.split == "val"
    assert card.calibration.nll_after <= card.calibration.nll_before
    assert card.temperature != 1


def test_a_run_need_not_calibrate_and_without_validation_it_does_not(tmp_path, make_config):
    for name, changes in {
        "told": {"train": {"epochs": 1, "calibrate": False}},
        "no validation": {"train": {"epochs": 1}, "data": {"val_split": None}},
    }.items():
        result = train(make_config(**changes), tmp_path / name, device="cpu")
        card = read_card(result.bundle)
        assert (card.temperature, card.calibration, card.area_sample) == (1, None, None), name


@pytest.fixture
def loader(easy_data, make_config):
    config = make_config(easy_data)
    data = open_data(DataSettings(root=easy_data))
    return prepare_training(data, config).val_loader


@pytest.fixture
def bundle(finished_run, tmp_path):
    """Return a bundle of a trained network that is far too sure, not calibrated yet."""
    trained = load_bundle(finished_run / "best.safetensors")
    card = trained.card.model_copy(
        update={"temperature": 1.0, "calibration": None, "area_sample": None}
    )
    path = tmp_path / "bundle.safetensors"
    save_bundle(path, trained.network, card)
    return path


def test_calibrating_fills_the_card_and_leaves_the_weights(bundle, loader, same_weights, tmp_path):
    before = tmp_path / "before.safetensors"
    before.write_bytes(bundle.read_bytes())
    steps = []
    calibrate(bundle, loader, split="val", device=CPU, progress=lambda *step: steps.append(step))
    card = read_card(bundle)
    assert same_weights(bundle, before)
    assert steps[-1] == ("calibrate", 4, 4, "tiles")
    # 64 x 64 pixels without the four rows of 255.
    assert card.calibration.pixels == 60 * 64
    assert card.calibration.split == "val"
    assert card.calibration.nll_after <= card.calibration.nll_before
    assert COLDEST <= card.temperature <= HOTTEST
    counts = card.area_sample.counts(3)
    assert counts.shape == (4, 3, 3) and counts.sum() == 60 * 64


def test_the_sample_for_areas_is_the_confusion_matrix_of_the_validation_split(bundle, loader):
    calibrate(bundle, loader, split="val", device=CPU)
    card = read_card(bundle)
    counts = card.area_sample.counts(3).sum(axis=0)
    hits, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    for number, row in enumerate(card.scores["classes"].values()):
        assert row["pixels"] == labelled[number]
        union = labelled[number] + predicted[number] - hits[number]
        assert row["iou"] == pytest.approx(hits[number] / union)


def test_calibrating_twice_gives_the_same_bytes(bundle, loader):
    calibrate(bundle, loader, split="val", device=CPU)
    first = bundle.read_bytes()
    calibrate(bundle, loader, split="val", device=CPU)
    assert bundle.read_bytes() == first


def test_scores_that_are_not_finite_are_named_with_a_way_on(bundle, loader):
    broken = load_bundle(bundle)
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(float("nan"))
    save_bundle(bundle, broken.network, broken.card)
    kept = bundle.read_bytes()
    with pytest.raises(TrainingError, match=r"not finite on validation tile 0.*calibrate=false"):
        calibrate(bundle, loader, split="val", device=CPU)
    assert bundle.read_bytes() == kept


def test_a_split_without_labels_leaves_the_bundle_uncalibrated(bundle, make_data, make_config):
    root = make_data()
    data = open_data(DataSettings(root=root))
    loader = prepare_training(data, make_config(root)).val_loader
    # A split that has none at the start is refused there.
    write_raster(root / "masks" / "s2.tif", np.full((64, 64), 255, "uint8"))
    calibrate(bundle, loader, split="val", device=CPU)
    card = read_card(bundle)
    assert (card.temperature, card.calibration) == (1, None)
    assert card.area_sample.counts(3).sum() == 0
