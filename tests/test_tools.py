"""The tools that train over seeds, with trainings that are pretended and one that is real."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tools(monkeypatch):
    """Return a function that gives a module of tools/, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    names = ("trials", "ablations", "bench_training")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: __import__(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def pretend(tools, monkeypatch):
    """Let trials leave scores without training, and return those that ran."""
    ran = []

    def run(trial, core=None):
        ran.append(trial)
        folder = trial.folder / "scores"
        folder.mkdir(parents=True)
        value = 0.5 + trial.seed / 100
        scores = [{"protocol": trial.protocol, "miou": value, "mf1": value, "oa": value}]
        (folder / "scores.json").write_text(json.dumps(scores))
        (trial.folder / "run").mkdir()
        (trial.folder / "run" / "metrics.csv").write_text("epoch,step,val_miou\n1,40,0.5\n")

    monkeypatch.setattr(tools("trials").Trial, "run", run)
    return ran


def test_a_table_is_trained_over_seeds_and_printed_beside_what_was_published(
    tools, pretend, tmp_path, monkeypatch, capsys
):
    given = ["--table", "4", "--data", "VAI", "--seeds", "1", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["ablations.py", *given, "--set", "train.epochs=3"])
    tools("ablations").main()
    lines = capsys.readouterr().out.splitlines()
    # The mean of 51 and 53, and sqrt(2).
    wanted = "52.00 ± 1.41"
    assert f"| SS2D | {wanted} | {wanted} | {wanted} | 75.08 | 4.09 | 22.04 |" in lines
    assert any("seeds [1, 3]; changed: train.epochs=3" in line for line in lines)
    assert [trial.seed for trial in pretend] == [1, 3, 1, 3]
    scans = [yaml.safe_load(trial.config.read_text())["model"]["settings"] for trial in pretend]
    assert [settings["scan"] for settings in scans] == ["ss2d", "ss2d", "cs2d", "cs2d"]
    assert {trial.protocol for trial in pretend} == {"cvmh-paper"}


def test_a_table_that_is_called_again_trains_only_what_is_missing(
    tools, pretend, tmp_path, monkeypatch, capsys
):
    given = ["ablations.py", "--table", "1", "--data", "VAI", "--out", str(tmp_path)]
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", [*given, "--seeds", *seeds])
        tools("ablations").main()
    # Table 1 has one network of ours; the rivals are printed, not trained.
    assert [trial.seed for trial in pretend] == [0, 1]
    assert "| CMTFNet | - | - | - | 75.05 | 85.38 | 85.04 |" in capsys.readouterr().out


def test_configs_are_compared_at_equal_minutes_on_the_same_seeds(
    tools, pretend, tmp_path, monkeypatch, capsys
):
    configs = [str(ROOT / "configs" / name) for name in ("laptop.yaml", "laptop_strong.yaml")]
    given = ["--data", "a/fields", "--config", *configs, "--seeds", "0", "2", "--minutes", "7"]
    given += ["--out", str(tmp_path), "--sequential"]
    monkeypatch.setattr(sys, "argv", ["bench_training.py", *given])
    tools("bench_training").main()
    lines = capsys.readouterr().out.splitlines()
    assert "| fields | laptop | 51.00 ± 1.41 | 50.00, 52.00 | 40, 40 |" in lines
    assert [(trial.config.stem, trial.seed) for trial in pretend] == [
        ("laptop", 0),
        ("laptop_strong", 0),
        ("laptop", 2),
        ("laptop_strong", 2),
    ]
    assert all("train.minutes=7.0" in trial.settings for trial in pretend)


def test_networks_are_compared_with_each_core_for_one_at_a_time(
    tools, pretend, tmp_path, monkeypatch, capsys
):
    given = ["--data", "fields", "--config", str(ROOT / "configs" / "laptop.yaml"), "--seeds", "3"]
    given += ["--network", "cvmh_unet_nano", "smp:fpn:resnet18", "unet_resnet18"]
    monkeypatch.setattr(sys, "argv", ["bench_training.py", *given, "--out", str(tmp_path)])
    tools("bench_training").main()
    lines = capsys.readouterr().out.splitlines()
    assert "| fields | laptop smp:fpn:resnet18 | 53.00 | 53.00 | 40 |" in lines
    names = {"cvmh_unet_nano", "smp:fpn:resnet18", "unet_resnet18"}
    assert {trial.network for trial in pretend} == names
    assert all("data.workers=0" in trial.settings for trial in pretend)


def test_scores_of_a_trial_with_other_settings_are_not_taken_for_those_asked_for(
    tools, tmp_path, monkeypatch
):
    module = tools("trials")
    monkeypatch.setattr(module.Trial, "_call", lambda trial, *arguments: None)
    config = tmp_path / "config.yaml"
    config.write_text("train: {epochs: 1}")
    trial = module.Trial(
        folder=tmp_path / "trial", config=config, dataset="folder", data=tmp_path, seed=0
    )
    trial.run()
    assert not trial.is_finished
    other = dataclasses.replace(trial, split="test", settings=("train.minutes=1",))
    with pytest.raises(SystemExit, match=r"trial is of a trial with other split, settings; give"):
        assert other.is_finished
    config.write_text("train: {epochs: 2}")
    with pytest.raises(SystemExit, match=r"with other config; give another --out"):
        assert trial.is_finished


@pytest.mark.slow
def test_a_trial_trains_scores_and_goes_on_where_it_was_stopped(
    tools, tmp_path, easy_data, make_config
):
    config = tmp_path / "config.yaml"
    config.write_text(make_config(train={"epochs": 1}).to_yaml())
    trial = tools("trials").Trial(
        folder=tmp_path / "trial", config=config, dataset="folder", data=easy_data, seed=5
    )
    trial.run()
    assert trial.is_finished and 0 < trial.score() < 100
    assert yaml.safe_load((trial.folder / "run" / "config.yaml").read_text())["train"]["seed"] == 5
    trained = (trial.folder / "run" / "best.safetensors").stat().st_mtime_ns
    (trial.folder / "scores" / "scores.json").unlink()
    trial.run()
    assert (trial.folder / "run" / "best.safetensors").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_a_trial_that_fails_says_so_with_the_last_line_of_its_log(tools, tmp_path):
    trial = tools("trials").Trial(
        folder=tmp_path / "trial",
        config=ROOT / "configs" / "laptop.yaml",
        dataset="folder",
        data=tmp_path / "nowhere",
        seed=0,
    )
    with pytest.raises(SystemExit, match=r"trial: .*nowhere"):
        trial.run()
