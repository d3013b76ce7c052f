"""What the doctor says of a data set: one finding is one fact, where it is, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file, and the pixel of it that shows what is meant, if one does."""

    file: Path
    row: int | None = None
    column: int | None = None

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return the place for ``--json``; files lie relative to the data set where they can."""
        pixel = {} if self.row is None else {"row": self.row, "column": self.column}
        return {"file": relative(self.file, root), **pixel}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing.

    ``code`` names the kind of finding for programs; ``what`` and ``fix`` are a sentence each;
    ``counts`` holds the numbers of the sentence.
    """

    code: str
    severity: Severity
    what: str
    fix: str
    places: tuple[Place, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return the finding for ``--json``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": self.what,
            "fix": self.fix,
            "places": [place.to_json(root) for place in self.places],
            "counts": dict(self.counts),
        }


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings with the most severe first, otherwise as they came."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def relative(path: Path, root: Path) -> str:
    """Return a path as it is called inside a data set."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def places_of(files: Sequence[Path]) -> tuple[Place, ...]:
    """Return files as places."""
    return tuple(Place(file=file) for file in files)


def counted(number: int, noun: str) -> str:
    """Return "1 image" or "1,234 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
