"""The class table: id, name and colour of every class, in one place.

Palettes, legends, plots and scores all take their names and colours from here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvmh.errors import ConfigError

# The value of a mask where the scene has no data, and of a label that does not count.
NODATA_ID = 255


@dataclass(frozen=True, kw_only=True)
class SegClass:
    """One class: its id in labels and masks, its name, its colour as (red, green, blue)."""

    id: int
    name: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set or a bundle, ordered by id; ids run 0, 1, 2 ... without a gap."""

    classes: tuple[SegClass, ...]

    def __post_init__(self) -> None:
        """Check the table once, so that everything that takes one can trust it."""
        ids = [entry.id for entry in self.classes]
        if ids != list(range(len(ids))) or not ids or len(ids) > NODATA_ID:
            raise ConfigError(
                f"class ids must run 0, 1, 2 ... without a gap, at most {NODATA_ID}, got {ids}"
            )
        names = [entry.name for entry in self.classes]
        if len(set(names)) != len(names):
            raise ConfigError(f"class names must differ from each other, got {names}")
        for entry in self.classes:
            if len(entry.rgb) != 3 or not all(0 <= part <= 255 for part in entry.rgb):
                raise ConfigError(
                    f"the colour of class '{entry.name}' must be three numbers 0..255, "
                    f"got {entry.rgb}"
                )

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    def __iter__(self) -> Iterator[SegClass]:
        """Yield the classes by ascending id."""
        return iter(self.classes)

    @property
    def names(self) -> list[str]:
        """The class names by ascending id."""
        return [entry.name for entry in self.classes]

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """The class colours (red, green, blue) by ascending id."""
        return [entry.rgb for entry in self.classes]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the table in the form of ``classes.json``."""
        return [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in self.classes]

    @classmethod
    def from_json(cls, entries: object, *, source: str = "classes") -> "ClassTable":
        """Build a table from the form of ``classes.json``; an entry with id 255 is left out.

        Args:
            entries: a list of ``{"id": int, "name": str, "rgb": [int, int, int]}``.
            source: what to call the entries in an error message, usually the file's name.

        Raises:
            ConfigError: the entries are not of that form, or the ids have a gap.
        """
        try:
            rows = [
                SegClass(id=int(e["id"]), name=str(e["name"]), rgb=_rgb(e["rgb"]))
                for e in entries  # type: ignore[attr-defined]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{source} must be a list of {{id, name, rgb}} entries, but one could not be read "
                f"({error!r})"
            ) from error
        kept = sorted((row for row in rows if row.id != NODATA_ID), key=lambda row: row.id)
        try:
            return cls(tuple(kept))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> "ClassTable":
        """Read a table from a ``classes.json`` file.

        Raises:
            ConfigError: the file is missing, is not JSON, or is not a class table.
        """
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path} is missing; write the class table there as [{{id, name, rgb}}, ...]"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable JSON file ({error})") from error
        return cls.from_json(entries, source=str(path))


def _rgb(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in value)
    return red, green, blue


ISPRS = ClassTable(
    (
        SegClass(id=0, name="impervious", rgb=(255, 255, 255)),
        SegClass(id=1, name="building", rgb=(0, 0, 255)),
        SegClass(id=2, name="low_vegetation", rgb=(0, 255, 255)),
        SegClass(id=3, name="tree", rgb=(0, 255, 0)),
        SegClass(id=4, name="car", rgb=(255, 255, 0)),
        SegClass(id=5, name="clutter", rgb=(255, 0, 0)),
    )
)
