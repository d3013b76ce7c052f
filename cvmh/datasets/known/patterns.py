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
    for path in sorted(base.glob(PLACEHOLDER.sub("*", layout.image))):
        found = expression.fullmatch(path.relative_to(base).as_posix())
        if found:
            yield path, found.groupdict()


class Folders:
    """Says whether files exist; each folder is listed only once."""

    def __init__(self) -> None:
        self._names = cache(_names)

    def first(
        self, base: Path, patterns: tuple[str, ...], fields: Mapping[str, str]
    ) -> Path | None:
        """Return the first file of some patterns that exists, None if none does."""
        for pattern in patterns:
            path = base / pattern.format(**fields)
            if path.name in self._names(path.parent):
                return path
        return None


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


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
