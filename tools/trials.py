"""Trials of the tools: a training and its scores, each in a folder that is finished or goes on."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from cvmh.cli.main import main; main()"
# A core that other work shares makes a trial last longer, but gives it no less: its minutes are
# those of its processor.
PINNED = """import os, time
os.sched_setaffinity(0, {{{core}}})
from cvmh.train.callbacks import Pace
Pace.clock = staticmethod(time.process_time)
"""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training with its evaluation; ``folder`` holds the run, its log and its scores."""

    folder: Path
    config: Path
    dataset: str
    data: Path
    seed: int
    split: str = "val"
    protocol: str = "full"
    # Instead of the config's.
    network: str = ""
    settings: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Say whether its scores are there; exit where the folder is that of another trial."""
        written = self.folder / "trial.json"
        before = json.loads(written.read_text()) if written.exists() else self._asked()
        changed = [name for name, value in self._asked().items() if before.get(name) != value]
        if changed:
            raise SystemExit(
                f"{self.folder} is of a trial with other {', '.join(changed)}; give another --out"
            )
        return (self.folder / "scores" / "scores.json").exists()

    def run(self, core: int | None = None) -> None:
        """Train from the beginning or from where it was stopped, then score; raise if it fails.

        Args:
            core: that it runs on, whose time its minutes are; None: all of them, and the clock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "trial.json").write_text(json.dumps(self._asked(), indent=1) + "\n")
        if not (self.folder / "run" / "best.safetensors").exists():
            self._call(core, "train", *self._training())
        self._call(
            core,
            *("evaluate", self.folder / "run" / "best.safetensors", "--dataset", self.dataset),
            *("--data", self.data, "--split", self.split, "--protocol", self.protocol),
            *("--boundary", 0, "--out", self.folder / "scores", "--overwrite"),
        )

    def score(self, name: str = "miou") -> float:
        """Return a score in per cent."""
        (entry,) = json.loads((self.folder / "scores" / "scores.json").read_text())
        return 100 * float(entry[name])

    def _asked(self) -> dict[str, object]:
        """Return what its scores depend on, as JSON has it."""
        return {
            "config": self.config.read_text(encoding="utf-8"),
            "dataset": self.dataset,
            "data": str(self.data.resolve()),
            "seed": self.seed,
            "split": self.split,
            "protocol": self.protocol,
            "network": self.network,
            "settings": list(self.settings),
        }

    def _training(self) -> list[object]:
        out = ("--out", self.folder / "run")
        if (self.folder / "run" / "run.json").exists():
            return ["--resume", *out]
        options = ["--dataset", self.dataset, "--data", self.data, "--seed", self.seed]
        if self.network:
            options += ["--model", self.network]
        pairs = [part for setting in self.settings for part in ("--set", setting)]
        return ["--config", self.config, *options, *out, *pairs]

    def _call(self, core: int | None, *arguments: object) -> None:
        pin = "" if core is None else PINNED.format(core=core)
        threads = {} if core is None else {"OMP_NUM_THREADS": "1"}
        with (self.folder / "log.txt").open("a") as log:
            outcome = subprocess.run(
                [sys.executable, "-c", pin + COMMAND, *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), **threads},
            )
        if outcome.returncode:
            said = (self.folder / "log.txt").read_text().strip().splitlines()
            raise SystemExit(f"{self.folder}: {said[-1] if said else outcome.returncode}")


def mean_and_spread(values: Sequence[float]) -> str:
    """Return "mean ± standard deviation", or the value alone where there is one."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def circumstances() -> str:
    """Return device, versions and commit in one line, for below a table."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {_processor()}"
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    commit = described.stdout.strip() or "no commit"
    names = ("torch", "lightning", "segmentation-models-pytorch")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{device}; {versions}, Python {platform.python_version()}; commit {commit}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()
