import json
import re
from pathlib import Path

import pytest

from cvmh.config import ModelSettings, RunConfig
from cvmh.errors import ConfigError
from cvmh.models.bundle import read_card
from cvmh.models.zoo import PRESETS

SHORT = (
    *("--set", "data.tile=32", "--set", "data.batch=4", "--set", "data.crops_per_epoch=4"),
    *("--set", "data.workers=0", "--set", "train.epochs=1"),
)


@pytest.fixture
def train_tiny(cvmh, make_config, easy_data, tmp_path):
    """Return a function that trains the small network for one epoch."""
    (tmp_path / "net.yaml").write_text(
        RunConfig(model=make_config().model).model_dump_json(include={"model"})
    )

    def run(*options):
        given = ("--config", "net.yaml", "--dataset", "folder", "--data", easy_data)
        return cvmh("train", *given, *SHORT, *options)

    return run


def test_training_tells_each_epoch_on_stderr_and_the_bundle_on_stdout(train_tiny, tmp_path):
    outcome = train_tiny("--out", "run")
    bundle = Path("run") / "best.safetensors"
    assert (outcome.code, outcome.stdout) == (0, f"{bundle}\n")
    (line,) = outcome.stderr.splitlines()
    assert re.match(r"epoch 1  step 1  train_loss \d\.\d{4}  val_loss \d\.\d{4}  val_miou", line)
    command = json.loads((tmp_path / "run" / "run.json").read_text())["command"]
    assert command.startswith("cvmh train --config net.yaml --dataset folder")


def test_options_and_assignments_win_over_the_config_file(train_tiny, tmp_path):
    assert train_tiny("--out", "run", "--seed", "7", "--set", "train.loss.dice=0.5").code == 0
    config = RunConfig.read(tmp_path / "run" / "config.yaml")
    assert (config.train.seed, config.train.loss.dice, config.train.epochs) == (7, 0.5, 1)
    assert (config.model.name, config.data.tile) == ("cvmh_unet_nano", 32)
    assert config.model.settings["stem_widths"] == [8, 16]


def test_without_a_folder_the_run_is_named_after_data_network_and_time(train_tiny, tmp_path):
    assert train_tiny().code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"folder-cvmh_unet_nano-\d{8}-\d{6}", run.name)
    assert (run / "best.safetensors").exists()


def test_a_finished_run_is_neither_resumed_nor_replaced(train_tiny, cvmh, tmp_path):
    train_tiny("--out", "run")
    before = (tmp_path / "run" / "best.safetensors").read_bytes()
    outcome = cvmh("train", "--resume", "--out", "run")
    assert outcome.code == 1
    assert "the run in run is complete, so there is nothing to resume" in outcome.stderr
    outcome = train_tiny("--out", "run")
    assert outcome.code == 1 and "run is not empty; choose another --out" in outcome.stderr
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", [None, "cvmh_unet_nano", "unet_resnet18"])
def test_a_network_brings_its_learning_rate_unless_one_is_given(cvmh, easy_data, monkeypatch, name):
    seen = []

    def remember(config, out, **options):
        seen.append(config)
        raise ConfigError("seen")

    monkeypatch.setattr("cvmh.train.train", remember)
    given = ["train", "--dataset", "folder", "--data", easy_data]
    given += ["--model", name] if name else []
    cvmh(*given)
    cvmh(*given, "--set", "train.learning_rate=0.5")
    # A network that has learned already, and that learns to leave out cells, takes a tenth.
    chosen = name or ModelSettings().name
    cvmh(*given, "--model", chosen, "--init", "dense.safetensors", "--set", "pruning={}")
    cvmh(*given, "--set", "pruning={}")
    wanted = PRESETS[chosen].learning_rate
    rates = [config.train.learning_rate for config in seen]
    assert rates == [wanted, 0.5, pytest.approx(wanted / 10), wanted]


def test_a_run_that_starts_from_a_bundle_has_its_network_unless_it_names_one(
    cvmh, easy_data, tiny_bundle, monkeypatch
):
    seen = []

    def remember(config, out, **options):
        seen.append(config.model)
        raise ConfigError("seen")

    monkeypatch.setattr("cvmh.train.train", remember)
    card = read_card(tiny_bundle)
    assert card.settings
    given = ["train", "--dataset", "folder", "--data", easy_data, "--init", tiny_bundle]
    cvmh(*given)
    cvmh(*given, "--set", "pruning={}", "--set", "model.settings.drop_path=0.5")
    cvmh(*given, "--model", "cvmh_unet_small")
    assert [model.name for model in seen] == [card.model, card.model, "cvmh_unet_small"]
    assert seen[0].settings == card.settings
    assert seen[1].settings == {**card.settings, "drop_path": 0.5}
    assert seen[2].settings == {}
    outcome = cvmh(*given[:-1], "missing.safetensors")
    assert outcome.code == 1 and "missing.safetensors" in outcome.stderr and len(seen) == 3


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_interrupted_run_is_said_to_go_on_only_if_it_has_begun(
    train_tiny, tmp_path, monkeypatch, has_begun
):
    def interrupt(config, out, **options):
        if has_begun:
            out.mkdir()
            (out / "run.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("cvmh.train.train", interrupt)
    outcome = train_tiny("--out", "run")
    assert outcome.code == 130
    assert ("continue with: cvmh train --resume --out run" in outcome.stderr) == has_begun
