"""The folder of a run: which state it is in, and what it holds."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from cvmh.errors import ConfigError, OutputError
from cvmh.files import write_complete
from cvmh.models.bundle import versions

# The best network so far; it gets the bundle's name only when the run is complete.
UNFINISHED = "best.unfinished.safetensors"
FINISHED = "best.safetensors"
# The state of a run whose epochs are over, and whose bundle is not calibrated yet.
FITTED = "fitted"
# What ``run.json`` says of how a run started, to its end.
FACTS_OF_START = ("init", "pretrained", "trained_parameters", "teacher")


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a complete run leaves: its bundle, and the figures of the epoch that it is of."""

    bundle: Path
    scores: dict[str, Any]
    epochs: int
    steps: int


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder that a run cannot begin in, or be continued in.

    Raises:
        OutputError: it holds something already.
        ConfigError: it holds no run, or one that is complete.
    """
    if resume and (out / FINISHED).exists():
        raise ConfigError(f"the run in {out} is complete, so there is nothing to resume")
    if resume and not (out / "run.json").exists():
        raise ConfigError(f"{out} holds no run to resume; start one without --resume")
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; choose another --out, or continue it with --resume")


def read_fitted(out: Path) -> TrainingResult | None:
    """Return what a run that was stopped after its last epoch had come to; None before that.

    Raises:
        ConfigError: the state of the run cannot be read.
    """
    try:
        state = json.loads((out / "run.json").read_text())
    except ValueError as error:
        raise ConfigError(f"{out / 'run.json'} is damaged ({error}); begin a new run") from error
    # The first process may have finished before another one looks.
    if state.get("state") not in (FITTED, "finished"):
        return None
    return TrainingResult(
        bundle=out / FINISHED, scores=state["best"], epochs=state["epochs"], steps=state["steps"]
    )


def read_teacher(out: Path) -> str | None:
    """Return the fingerprint of the teacher that a run began with, None if it had none."""
    teacher = _facts_of_start(out).get("teacher")
    return None if teacher is None else str(teacher["sha256"])


def write_state(
    out: Path,
    fingerprint: str,
    *,
    state: str,
    command: str,
    result: TrainingResult | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write ``run.json``; ``facts`` of how the run started stay in it to the end."""
    content = {
        **_facts_of_start(out),
        **(facts or {}),
        "state": state,
        "command": command,
        "versions": {
            **versions(),
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "lightning": lightning.__version__,
        },
        "data_fingerprint": fingerprint,
        "best": None if result is None else result.scores,
        "epochs": None if result is None else result.epochs,
        "steps": None if result is None else result.steps,
    }
    write_complete(out / "run.json", json.dumps(content, indent=1) + "\n")


def _facts_of_start(out: Path) -> dict[str, Any]:
    try:
        state = json.loads((out / "run.json").read_text())
    except FileNotFoundError:
        return {}
    return {key: state[key] for key in FACTS_OF_START if key in state}
