"""The run folder that a bundle lies in, as far as a report shows it."""

import csv
from dataclasses import dataclass
from pathlib import Path

# A folder with these files is a run's.
MARKS = ("run.json", "config.yaml")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The rows of ``metrics.csv``, one an epoch, and the text of ``config.yaml``."""

    rows: tuple[dict[str, float], ...]
    settings: str


def read_run_folder(folder: Path) -> RunFolder | None:
    """Return what a folder tells of a run, or None if it is not a run's."""
    if not all((folder / name).is_file() for name in MARKS):
        return None
    history = folder / "metrics.csv"
    text = history.read_text(encoding="utf-8", errors="replace") if history.is_file() else ""
    settings = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    rows = [_numbers(row) for row in csv.DictReader(text.splitlines())]
    return RunFolder(rows=tuple(row for row in rows if "epoch" in row), settings=settings)


def _numbers(row: dict[str, str | None]) -> dict[str, float]:
    """Return the cells that are numbers; an epoch without validation leaves some empty."""
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text or "")
        except (TypeError, ValueError):
            continue
    return found
