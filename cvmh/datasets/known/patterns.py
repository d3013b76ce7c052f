"""Finding files by patterns such as ``{split}/images/{tile}.png``."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from cvmh.datasets.known.sets import Layout

PLACEHOLDER = re.compile(r"{(\w+)}")


def matches(base: Path, layout: Layout) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the images of a layout below a folder, sorted, with what the placeholders stand for."""
    expression = _expression(layout)
    # There may be tens of thousands of files: paths are compared and cut as text.
    above = len((base / "x").as_posix()) - 1
    for path in sorted(base.glob(PLACEHOLDER.sub("*", layout.image)), key=str):
        found = expression.fullmatch(path.as_posix(), above)
        # Hidden files such as ._tile.tif are what macOS leaves on foreign disks.
        if found and not path.name.startswith("."):
            yield path, found.groupdict()


class Folders:
    """Says whether files exist; each folder is listed only once."""

    def __init__(self) -> None:
        self._files = cache(_files)

    def first(
        self, base: Path, patterns: tuple[str, ...], fields: Mapping[str, str]
    ) -> Path | None:
        """Return the first file of some patterns that exists, None if none does."""
        for pattern in patterns:
            folder, _, name = pattern.format(**fields).rpartition("/")
            path = self._files(base, folder).get(name)
            if path is not None:
                return path
        return None


def _files(base: Path, folder: str) -> dict[str, Path]:
    place = base / folder
    return {path.name: path for path in place.iterdir()} if place.is_dir() else {}


def _expression(layout: Layout) -> re.Pattern[str]:
    known = dict(layout.fields)
    if layout.folders:
        known["split"] = "|".join(map(re.escape, layout.folders))
    seen: set[str] = set()
    parts = []
    for position, part in enumerate(PLACEHOLDER.split(layout.image)):
        if position % 2 == 0:
            parts.append(re.escape(part))
        elif part in seen:
            parts.append(f"(?P={part})")
        else:
            seen.add(part)
            parts.append(f"(?P<{part}>{known.get(part, '[^/]+')})")
    return re.compile("".join(parts))
