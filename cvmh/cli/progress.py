"""Progress on stderr: a bar on a terminal, JSON lines for programs, or nothing."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from cvmh.progress import Progress, silent

# JSON lines are written at most so often, and always for the last unit of a stage.
SECONDS_BETWEEN_LINES = 0.5


@contextmanager
def shown(mode: str) -> Iterator[Progress]:
    """Give the callback of a mode: "auto" (a bar on a terminal, else nothing), "json" or "off"."""
    if mode == "json":
        yield _JsonLines()
    elif mode == "auto" and sys.stderr.isatty():
        with _bar() as bar:
            yield _Bars(bar)
    else:
        yield silent


def _bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Bars:
    """One bar a stage."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, unit=unit)
        self._bar.update(self._tasks[stage], completed=done, total=total)


class _JsonLines:
    """One JSON object a line: stage, done, total, unit, eta_s."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._written = 0.0

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        started = self._started.setdefault(stage, now)
        if done < total and now - self._written < SECONDS_BETWEEN_LINES:
            return
        self._written = now
        eta = (now - started) / done * (total - done) if done else None
        line = {
            "stage": stage,
            "done": done,
            "total": total,
            "unit": unit,
            "eta_s": None if eta is None else round(eta, 1),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
