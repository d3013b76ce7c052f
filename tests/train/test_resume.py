"""The same settings give the same bits, whatever loads the crops, stopped or not."""

import signal

import pytest

from cvmh.errors import ConfigError
from cvmh.report.info import describe
from cvmh.train import train

# Three steps an epoch: the third epoch is the steps from 6 on, and 7 is in its middle.
RUN = {"data": {"crops_per_epoch": 12}, "train": {"epochs": 4, "seed": 3}}
# Everything that carries something from step to step. Five batches are three steps of two.
ALL = {
    "data": {"crops_per_epoch": 20, "balance": 0.5},
    "augment": {"cutmix": 0.5, "scale": [0.8, 1.25]},
    "train": {
        "epochs": 4,
        "accumulate": 2,
        "ema": 0.95,
        "schedule": "one_cycle",
        "warmup": 0.3,
        "class_weights": "sqrt_inverse",
        "loss": {"cross_entropy": 1, "lovasz": 1},
    },
}
KILLED_IN_EPOCH_3 = """
import os, signal, sys
from pathlib import Path
from cvmh.config import RunConfig
from cvmh.train import train

def kill(stage, done, total, unit):
    if stage == "train" and done == 7:
        os.kill(os.getpid(), signal.SIGKILL)

train(RunConfig.read(Path(sys.argv[1])), Path(sys.argv[2]), device="cpu", progress=kill)
"""


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory, make_config):
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(make_config(**RUN), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def straight_run_with_all(tmp_path_factory, make_config):
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(make_config(**ALL), folder, device="cpu")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "straight"), [(RUN, "straight_run"), (ALL, "straight_run_with_all")]
)
def test_a_killed_run_looks_unfinished_and_ends_with_the_same_bits_when_it_is_resumed(
    tmp_path, make_config, start_python, same_weights, request, groups, straight
):
    straight_run, killed_run = request.getfixturevalue(straight), tmp_path / "run"
    (tmp_path / "config.yaml").write_text(make_config(**groups).to_yaml())
    process = start_python("-c", KILLED_IN_EPOCH_3, tmp_path / "config.yaml", killed_run)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, stderr
    assert not (killed_run / "best.safetensors").exists()
    facts = describe(killed_run)
    assert facts["state"] == "not finished; continue it with --resume"
    assert (facts["epochs"], facts["bundle"]) == ("2 of 4", None)
    result = train(make_config(**groups), killed_run, device="cpu", resume=True)
    assert result.epochs == 4
    assert same_weights(result.bundle, straight_run / "best.safetensors")
    for file in ("metrics.csv", "config.yaml"):
        assert (killed_run / file).read_text() == (straight_run / file).read_text()
    assert describe(killed_run)["state"] == "finished"


@pytest.mark.parametrize(
    ("change", "is_same"),
    [({}, True), ({"data": {"workers": 2}}, True), ({"train": {"seed": 4}}, False)],
    ids=["again", "two workers", "another seed"],
)
def test_the_seed_alone_decides_the_weights(
    tmp_path, straight_run, make_config, same_weights, change, is_same
):
    groups = {group: {**RUN[group], **change.get(group, {})} for group in RUN}
    result = train(make_config(**groups), tmp_path / "run", device="cpu")
    assert same_weights(result.bundle, straight_run / "best.safetensors") == is_same
    metrics = (tmp_path / "run" / "metrics.csv").read_text()
    assert (metrics == (straight_run / "metrics.csv").read_text()) == is_same


def test_a_finished_run_cannot_be_resumed(straight_run, make_config):
    with pytest.raises(ConfigError, match="is complete, so there is nothing to resume"):
        train(make_config(**RUN), straight_run, resume=True)


def test_an_empty_folder_cannot_be_resumed(tmp_path, make_config):
    with pytest.raises(ConfigError, match=r"holds no run to resume; start one without --resume"):
        train(make_config(**RUN), tmp_path, resume=True)
