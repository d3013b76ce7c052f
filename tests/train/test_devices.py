"""Runs in several processes: real ones, over gloo on this machine."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file

from cvmh.config import RunConfig, TrainSettings
from cvmh.errors import ConfigError, LostProcessError
from cvmh.geo.raster import Raster, write_raster
from cvmh.models.bundle import read_card
from cvmh.settings import merge, parse_assignment
from cvmh.train import train
from cvmh.train.devices import Agreement, Devices, find_devices, told_when_lost

ENVIRONMENT = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK")
LIMIT = 240
ROOT = Path(__file__).parents[2]


# Which processes there are.


@pytest.fixture
def bare(monkeypatch):
    """Clear what a launcher would have set, and return the function that sets it."""
    for name in (*ENVIRONMENT, "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return lambda **names: [monkeypatch.setenv(name, value) for name, value in names.items()]


def test_one_process_needs_no_launcher(bare):
    devices = find_devices(TrainSettings(), "cpu")
    assert (devices.count, devices.rank, devices.strategy) == (1, 0, "auto")
    assert devices.is_first


def test_ranks_count_over_machines(bare):
    bare(MASTER_ADDR="10.0.0.1", MASTER_PORT="2222", NODE_RANK="1", LOCAL_RANK="2")
    devices = find_devices(TrainSettings(devices=4, nodes=2), "cpu")
    assert (devices.count, devices.rank, devices.is_first) == (8, 6, False)


def test_slurm_gives_each_of_its_tasks_a_rank(bare):
    bare(SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3", SLURM_LOCALID="1", SLURM_NODEID="1")
    assert find_devices(TrainSettings(devices=2, nodes=2), "cpu").rank == 3


@pytest.mark.parametrize(
    ("names", "settings", "match"),
    [
        ({}, {"strategy": "fsdp"}, r"train.strategy=fsdp needs GPUs; use ddp on a CPU"),
        ({}, {"nodes": 2}, r"--nodes 2 needs .*MASTER_ADDR, MASTER_PORT, NODE_RANK is not set"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"nodes": 2}, r"srun.*; NODE_RANK is not set"),
        (
            {
                "TORCHELASTIC_RUN_ID": "x",
                "RANK": "1",
                "LOCAL_RANK": "1",
                "WORLD_SIZE": "3",
                "GROUP_RANK": "0",
                "LOCAL_WORLD_SIZE": "3",
            },
            {"devices": 2},
            r"torchrun started 3 processes, but --devices 2 and --nodes 1 ask for 2",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(bare, names, settings, match):
    bare(**names)
    with pytest.raises(ConfigError, match=match):
        find_devices(TrainSettings(**settings), "cpu")


def test_processes_that_see_other_data_do_not_begin():
    first = {"settings": "a", "training data": "b"}
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(broadcast=lambda facts: first), global_rank=2, world_size=4
    )
    Agreement(dict(first)).setup(trainer, None, "fit")
    with pytest.raises(ConfigError, match=r"process 3 of 4 has other training data than the first"):
        Agreement({**first, "training data": "c"}).setup(trainer, None, "fit")


@pytest.mark.parametrize("count", [1, 2])
def test_what_torch_says_of_a_lost_process_becomes_a_sentence(count):
    devices = Devices(uses_gpu=False, count=count, rank=1, strategy="auto")
    text = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"
    error = LostProcessError if count == 2 else RuntimeError
    with pytest.raises(error, match="process 2 of 2 lost the others" if count == 2 else "gloo"):
        with told_when_lost(devices):
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes differ"), told_when_lost(devices):
        raise RuntimeError("shapes differ")


# What they do together.


@pytest.fixture(scope="module")
def setting(make_config, easy_data, tmp_path_factory):
    """Return the file of a run's settings; labels are ignored in uneven numbers in its crops."""
    folder = tmp_path_factory.mktemp("uneven")
    shutil.copytree(easy_data, folder / "data")
    mask = folder / "data" / "masks" / "s0.tif"
    with Raster(mask) as raster:
        label = raster.read()[0].copy()
    label[:, 30:] = 255
    write_raster(mask, label, nodata=255)
    config = make_config(
        folder / "data",
        data={"crops_per_epoch": 16},
        train={"epochs": 3, "learning_rate": 3e-4, "calibrate": False},
    )
    (folder / "run.yaml").write_text(config.to_yaml())
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def start(setting):
    """Return a function that starts ``cvmh train`` in the folder of the settings."""
    started = []

    def start_command(*words, **environment):
        console_script = Path(sys.executable).with_name("cvmh")
        program = [console_script] if console_script.exists() else ["-m", "cvmh.cli.main"]
        variables = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
        process = subprocess.Popen(
            [sys.executable, *program, "train", *map(str, words)],
            cwd=setting.parent,
            env={
                **variables,
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


def two(setting, out, *words):
    return "--config", setting, "--out", out, "--devices", 2, "--set", "data.batch=2", *words


def ended(process, code=0):
    """Wait for a command and return what it wrote to stdout and stderr."""
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == code, errors
    return output, [line for line in errors.splitlines() if "compiling the scan" not in line]


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def worker_of(process, rank):
    """Return the process id of a rank that a command started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if f"LOCAL_RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")


def wait_for_epoch(process, number):
    """Read what a command writes until an epoch is over."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"epoch {number} "):
            return
    raise AssertionError("".join(lines))


def gone(numbers, seconds=30.0):
    """Say whether processes end within some seconds; those that nobody waits for count as gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{number}/stat") for number in numbers]
        alive = [path for path in states if path.exists() and " Z " not in path.read_text()]
        if not alive:
            return True
        time.sleep(0.2)
    return False


def count_pixels(folder):
    """Return how many pixels the validation of a run's bundle counted."""
    scores = read_card(folder / "best.safetensors").scores
    return sum(entry["pixels"] for entry in scores["classes"].values())


@pytest.fixture(scope="module")
def pair(setting, start):
    """Return the folder of a run of two processes that nothing disturbed."""
    output, errors = ended(start(*two(setting, "pair")))
    folder = setting.parent / "pair"
    assert output == "pair/best.safetensors\n"
    assert [line.split()[:2] for line in errors] == [["epoch", n] for n in "123"]
    return folder


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_with_twice_the_batch(setting, pair, tmp_path):
    config = RunConfig.read(setting)
    assert config.data.batch == 4
    train(config, tmp_path / "alone", device="cpu")
    expected, found = rows_of(tmp_path / "alone"), rows_of(pair)
    assert len(found) == len(expected) == 3
    # Rounding differs, and grows from step to step, in float64 too. Batch norms of each process
    # alone change the first row by 1e-3.
    for ours, theirs, error in zip(found, expected, (3e-5, 1e-2, 1e-2), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=error)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=10 * error)
    # The tile that pads the validation of one process counts nowhere.
    assert count_pixels(pair) == count_pixels(tmp_path / "alone")
    state = json.loads((pair / "run.json").read_text())
    assert state["state"] == "finished"


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one_with_twice_the_batch_does(
    setting, start, tiny_bundle, tmp_path
):
    taught = [
        f"train.distill.teacher={tiny_bundle}",
        "train.distill.kind=soft",
        "train.distill.weight=0.7",
        "train.epochs=1",
    ]
    words = [word for assignment in taught for word in ("--set", assignment)]
    ended(start(*two(setting, "taught", *words)))
    layers = [RunConfig.read(setting).model_dump(), *map(parse_assignment, taught)]
    train(RunConfig.model_validate(merge(*layers)), tmp_path / "alone", device="cpu")
    (found,), (expected,) = rows_of(setting.parent / "taught"), rows_of(tmp_path / "alone")
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=3e-5)
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=3e-4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_killed_process_ends_the_run_and_resuming_gives_the_same_weights(setting, start, pair):
    process = start(*two(setting, "killed"))
    wait_for_epoch(process, 1)
    workers = [worker_of(process, rank) for rank in (0, 1)]
    killed = time.monotonic()
    os.kill(workers[1], signal.SIGKILL)
    _, errors = ended(process, code=1)
    assert time.monotonic() - killed < 60
    assert gone(workers)
    (line,) = [line for line in errors if not line.startswith("epoch ")]
    assert line == (
        "cvmh: error: process 2 of 2 was ended by SIGKILL, so all were; "
        "continue with: cvmh train --resume --out killed"
    )
    assert not (setting.parent / "killed" / "best.safetensors").exists()
    ended(start("--resume", "--out", "killed"))
    kept, whole = (load_file(f / "best.safetensors") for f in (setting.parent / "killed", pair))
    assert all(np.array_equal(kept[key], whole[key]) for key in whole)
    assert rows_of(setting.parent / "killed") == rows_of(pair)


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_with_130(setting, start):
    process = start(*two(setting, "interrupted"))
    wait_for_epoch(process, 1)
    workers = [worker_of(process, rank) for rank in (0, 1)]
    process.send_signal(signal.SIGINT)
    _, errors = ended(process, code=130)
    assert [line for line in errors if line][-2:] == [
        "cvmh: continue with: cvmh train --resume --out interrupted",
        "cvmh: interrupted",
    ]
    assert gone(workers)


@pytest.mark.slow
def test_a_run_of_two_machines_is_that_of_two_processes(setting, start, pair):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = ("--config", setting, "--out", "nodes", "--nodes", 2, "--set", "data.batch=2")
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    machines = [start(*words, **meeting, NODE_RANK=str(rank)) for rank in (0, 1)]
    outputs = [ended(machine) for machine in machines]
    assert [output for output, _ in outputs] == ["nodes/best.safetensors\n", ""]
    assert outputs[1][1] == []
    ours = load_file(setting.parent / "nodes" / "best.safetensors")
    theirs = load_file(pair / "best.safetensors")
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_processes_stop_at_the_same_step_when_their_minutes_are_over(setting, start):
    limit = ("train.minutes=0.05", "data.crops_per_epoch=4000000")
    words = [word for text in limit for word in ("--set", text)]
    ended(start(*two(setting, "minutes", *words)))
    (row,) = rows_of(setting.parent / "minutes")
    assert 0 < row["step"] < 1_000_000


@pytest.mark.slow
def test_an_error_that_all_processes_meet_is_told_once(setting, start):
    process = start(*two(setting, "wild", "--set", "train.learning_rate=1e30"))
    output, errors = ended(process, code=1)
    (line,) = [line for line in errors if not line.startswith("epoch ")]
    assert re.match("cvmh: error: process [12] of 2: ", line) and output == ""
