"""Runs that start from a bundle, and that train a part of their network only."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cvmh.errors import BundleError, ConfigError
from cvmh.train import train

ENCODER = ("stem", "encoder", "merge")


def start(make_config, folder, bundle, *, model=None, **groups):
    settings = {"epochs": 1, "learning_rate": 1e-2, **groups.pop("train", {})}
    model = {"init": str(bundle), **(model or {})}
    return train(make_config(model=model, train=settings, **groups), folder, device="cpu")


def test_a_frozen_encoder_keeps_its_weights_and_statistics_bit_by_bit_while_the_head_learns(
    tmp_path, make_config, tiny_bundle, caplog
):
    caplog.set_level("INFO", logger="cvmh")
    train_settings = {"ema": 0.9}
    model = {"freeze_encoder": True}
    result = start(make_config, tmp_path / "run", tiny_bundle, model=model, train=train_settings)
    before, after = load_file(tiny_bundle), load_file(result.bundle)
    frozen = {key for key in before if key.split(".")[0] in ENCODER}
    assert frozen and all(before[key].equal(after[key]) for key in frozen)
    assert not before["head.classify.weight"].equal(after["head.classify.weight"])
    moved = [key for key in before if key.endswith("running_mean") and key not in frozen]
    assert any(not before[key].equal(after[key]) for key in moved)
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["init"]["bundle"] == str(tiny_bundle)
    assert state["init"]["copied"] == len(before)
    assert 0 < state["trained_parameters"] < sum(value.numel() for value in before.values())
    assert f"weights from {tiny_bundle}: {len(before)} tensors copied" in caplog.text
    assert "encoder frozen: " in caplog.text
    assert "its weights are random" not in caplog.text


def test_a_frozen_encoder_without_weights_is_told(tmp_path, make_config, caplog):
    caplog.set_level("INFO", logger="cvmh")
    model = {"freeze_encoder": True}
    train(make_config(model=model, train={"epochs": 1}), tmp_path / "run", device="cpu")
    assert "its weights are random; give it some with --init or model.pretrained" in caplog.text


def test_a_run_starts_where_the_bundle_is(tmp_path, make_config, tiny_bundle):
    still = {"learning_rate": 1e-30, "final_learning_rate": 0}
    result = start(make_config, tmp_path / "run", tiny_bundle, train=still)
    before, after = load_file(tiny_bundle), load_file(result.bundle)
    weights = [key for key in before if "running" not in key and "num_batches" not in key]
    assert all(torch.allclose(before[key], after[key], rtol=0, atol=1e-20) for key in weights)


def test_a_resumed_run_does_not_read_the_bundle_again_and_remembers_it(
    tmp_path, make_config, tiny_bundle
):
    bundle = tmp_path / "start.safetensors"
    bundle.write_bytes(tiny_bundle.read_bytes())
    rows = []

    def stop_in_second_epoch(row):
        rows.append(row)
        if len(rows) == 2:
            raise KeyboardInterrupt

    config = make_config(model={"init": str(bundle)})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", report=stop_in_second_epoch)
    bundle.unlink()
    train(config, tmp_path / "run", device="cpu", resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init"]["bundle"] == str(bundle)


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        (
            {"init": "nowhere.safetensors"},
            BundleError,
            r"bundle nowhere.safetensors does not exist",
        ),
        ({"name": "cvmh_unet_small"}, BundleError, r"is of network 'cvmh_unet_nano', the run"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_before_anything_is_made(
    tmp_path, make_config, tiny_bundle, model, error, match
):
    with pytest.raises((error, ConfigError), match=match):
        start(make_config, tmp_path / "run", tiny_bundle, model=model)
    assert not (tmp_path / "run").exists()
