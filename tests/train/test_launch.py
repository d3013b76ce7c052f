"""Watching the processes of a run; small scripts stand for them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cvmh.config import TrainSettings
from cvmh.errors import LostProcessError, TrainingError
from cvmh.train import launch

TWO = TrainSettings(devices=2)
# What a process of the run does, with the name of its folder of messages and its rank at hand.
HEAD = """
import os, sys, time
from pathlib import Path
rank, folder = os.environ["LOCAL_RANK"], Path(os.environ["CVMH_WATCHED"])
"""
FAIL = "(folder / rank).write_text('crop 7 is damaged'); sys.exit(1)"
WAIT = "time.sleep(100)"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs two processes, each with a script of its own."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "CAUSE", 3.0)
    monkeypatch.setattr(launch, "END", 1.0)

    def go(first, second):
        body = f"{HEAD}\nif rank == '0':\n    {first}\nelse:\n    {second}\n"
        monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", body))
        launch.run_processes(["train"], TWO, out=tmp_path / "run")

    return go


def test_processes_get_their_place_and_end_well(run, tmp_path):
    line = "Path(r'{}', rank).write_text(os.environ['MASTER_PORT'] + ' ' + sys.argv[1])"
    run(line.format(tmp_path), line.format(tmp_path))
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
    assert (tmp_path / "0").read_text().endswith(" train")


@pytest.mark.parametrize(
    ("first", "second", "error", "match"),
    [
        (WAIT, FAIL, TrainingError, r"^process 2 of 2: crop 7 is damaged$"),
        (FAIL, FAIL, TrainingError, r"^process [12] of 2: crop 7 is damaged$"),
        # The first to end has only noticed that another failed.
        ("sys.exit(76)", f"time.sleep(1); {FAIL}", TrainingError, r"^process 2 of 2: crop 7"),
        ("sys.exit(76)", "os.kill(os.getpid(), 9)", TrainingError, r"2 of 2 was ended by SIGKILL"),
        (
            "os.kill(os.getpid(), 9)",
            WAIT,
            TrainingError,
            r"continue with: .*--resume --out \S+/run",
        ),
        ("sys.exit(76)", "sys.exit(76)", LostProcessError, r"the processes of the run lost each"),
        ("sys.exit(76)", WAIT, LostProcessError, r"or one on another machine ended"),
        ("sys.exit(130)", WAIT, KeyboardInterrupt, None),
        ("sys.exit(143)", WAIT, SystemExit, "143"),
    ],
)
def test_the_end_of_one_ends_all_in_bounded_time_with_one_cause(run, first, second, error, match):
    started = time.monotonic()
    with pytest.raises(error, match=match):
        run(first, second)
    assert time.monotonic() - started < 30


def test_a_process_that_hears_no_interrupt_is_killed(run):
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(100)"
    started = time.monotonic()
    with pytest.raises(TrainingError, match="process 2 of 2: crop 7 is damaged"):
        run(deaf, f"time.sleep(1); {FAIL}")
    assert time.monotonic() - started < 30


def test_an_interrupt_ends_all(run):
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(WAIT, WAIT)
    timer.join()
    assert time.monotonic() - started < 30


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    root = Path(launch.__file__).parents[2]
    child = "from cvmh.train.launch import end_with_starter; import os, time; "
    child += "end_with_starter(); print(os.getpid(), flush=True); time.sleep(100)"
    starter = textwrap.dedent(f"""
        import os, subprocess, sys
        command = [sys.executable, "-c", {child!r}]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(child.stdout.readline(), flush=True)
        os.kill(os.getpid(), 9)
    """)
    found = subprocess.run(
        [sys.executable, "-c", starter],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    deadline = time.monotonic() + 20
    while Path("/proc", found.stdout.strip()).exists() and time.monotonic() < deadline:
        if "Z" in Path("/proc", found.stdout.strip(), "stat").read_text().split()[2]:
            break
        time.sleep(0.1)
    assert time.monotonic() < deadline
