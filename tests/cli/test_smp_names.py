"""Whole runs of networks that are named smp:ARCH:ENCODER."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from cvmh.models.encoders import ENCODERS, FAMILIES
from cvmh.models.zoo import create_model

ONE_STEP = (
    *("--set", "data.tile=64", "--set", "data.batch=2", "--set", "data.crops_per_epoch=2"),
    *("--set", "data.workers=0", "--set", "train.epochs=1", "--set", "train.calibrate=false"),
)
# The smallest of each family, as its table begins; VMamba in both generations.
SMALLEST = [*(next(iter(family.variants)) for family in FAMILIES), "vmamba_tiny_s1l8"]
DATA = os.environ.get("CVMH_TEST_DATA")
QUICK = "vssd_micro"
SMALL = '{"depths": [1, 1, 1, 1]}'


def run_through(cvmh, name, data, scene, *options):
    """Train for a step, predict a scene, evaluate; return the scores."""
    of_data = ("--dataset", "folder", "--data", data)
    outcome = cvmh("train", "--model", name, *of_data, "--out", "run", *ONE_STEP, *options)
    assert outcome.code == 0, outcome.stderr
    bundle = "run/best.safetensors"
    outcome = cvmh("predict", scene, "-o", "mask.tif", "--checkpoint", bundle, "--tile", "64")
    assert outcome.code == 0 and Path("mask.tif").exists(), outcome.stderr
    outcome = cvmh("evaluate", bundle, *of_data, "--split", "val", "--out", "scores")
    assert outcome.code == 0, outcome.stderr
    (score,) = json.loads(Path("scores/scores.json").read_text())
    return score


@pytest.fixture
def cleared(tmp_path):
    """Leave no bundle of a hundred megabytes behind."""
    yield
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.usefixtures("cleared")
@pytest.mark.parametrize(
    "name",
    [
        "smp:upernet:cvmh-vssd_micro",
        pytest.param("smp:unet:cvmh-vssd_micro", marks=pytest.mark.slow),
        *(
            pytest.param(f"smp:upernet:cvmh-{name}", marks=pytest.mark.slow)
            for name in SMALLEST
            if name != QUICK
        ),
    ],
)
def test_an_encoder_trains_a_step_predicts_and_evaluates(cvmh, easy_data, make_scene, name):
    scene = make_scene("odd.tif", height=65, width=97)
    score = run_through(cvmh, name, easy_data, scene)
    assert 0 <= score["miou"] <= 1
    assert json.loads(Path("run/run.json").read_text())["state"] == "finished"


@pytest.mark.usefixtures("cleared")
def test_such_a_run_starts_from_such_a_bundle(cvmh, easy_data, make_scene):
    small = ("--set", f"model.settings.encoder_settings={SMALL}")
    name = "smp:fpn:cvmh-vssd_micro"
    run_through(cvmh, name, easy_data, make_scene(), *small)
    outcome = cvmh(
        *("train", "--model", name, "--dataset", "folder", "--data", easy_data, *small),
        *("--init", "run/best.safetensors", "--set", "model.freeze_encoder=true"),
        *("--out", "next", *ONE_STEP, "--set", "train.layer_decay=0.8"),
    )
    assert outcome.code == 0, outcome.stderr
    assert "tensors copied" in outcome.stderr and "encoder frozen" in outcome.stderr
    shutil.rmtree("next")


def test_a_run_without_a_folder_is_named_without_colons(cvmh, easy_data, tmp_path):
    small = ("--set", f"model.settings.encoder_settings={SMALL}")
    given = ("--dataset", "folder", "--data", easy_data, *ONE_STEP, *small)
    assert cvmh("train", "--model", "smp:fpn:cvmh-vssd_micro", *given).code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("folder-smp-fpn-cvmh-vssd_micro-")
    shutil.rmtree(run)


@pytest.mark.parametrize(
    "name",
    [n if n in SMALLEST else pytest.param(n, marks=pytest.mark.slow) for n in ENCODERS],
)
def test_every_encoder_learns_under_upernet_as_far_as_shapes_go(name):
    with torch.device("meta"):
        network = create_model(f"smp:upernet:cvmh-{name}", bands=4)
    logits = network(torch.empty(2, 4, 64, 64, device="meta"))
    assert logits.shape == (2, 6, 64, 64)
    logits.sum().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]


def test_a_wrong_name_is_told_in_one_line(cvmh, easy_data):
    outcome = cvmh(
        "train", "--model", "smp:upernet:cvmh-vsd_tiny", "--data", easy_data, "--dataset", "folder"
    )
    assert outcome.code == 1 and outcome.stderr.count("\n") == 1
    assert "did you mean 'cvmh-vssd_tiny'?" in outcome.stderr


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters")
@pytest.mark.usefixtures("cleared")
def test_vssd_tiny_under_upernet_learns_real_data(cvmh):
    data = Path(DATA) / "data" / "naip_landcover6"
    scene = sorted((data / "images").glob("*.tif"))[0]
    score = run_through(cvmh, "smp:upernet:cvmh-vssd_tiny", data, scene)
    assert 0 < score["oa"] < 1
