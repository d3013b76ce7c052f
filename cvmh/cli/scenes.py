"""Which scenes a command means, and which outputs belong to each."""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from cvmh.errors import RasterError

STEM = "{stem}"
# A file of names, one a line.
LIST_SUFFIX = ".txt"
WILDCARDS = frozenset("*?[")


def find_scenes(given: Sequence[str]) -> tuple[str, ...]:
    """Return the scenes that some names mean: files, URLs, globs, and lists of such.

    A name with ``*``, ``?`` or ``[`` that is no file is a glob, for shells that do not expand it;
    a ``.txt`` file holds one name a line, empty lines and those that begin with # left out.

    Raises:
        RasterError: a glob matches no file, or a list is empty, names itself or cannot be read.
    """
    return tuple(dict.fromkeys(scene for name in given for scene in _expanded(name, ())))


def _expanded(name: str, lists: tuple[Path, ...]) -> Iterable[str]:
    """Return what a name means that was found in some lists, one within the other."""
    if is_remote(name):
        return [name]
    if Path(name).suffix.lower() == LIST_SUFFIX:
        path = Path(name).resolve()
        if path in lists:
            raise RasterError(f"the list of scenes {name} names itself; take that line out")
        inner = (*lists, path)
        return [scene for line in _lines(Path(name)) for scene in _expanded(line, inner)]
    if WILDCARDS & set(name) and not Path(name).exists():
        # Path.glob wants a folder apart from the pattern; what is typed may have neither or both.
        matching = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        found = [path for path in matching if not Path(path).is_dir()]
        if not found:
            raise RasterError(f"no file matches {name}; check the folder and the pattern")
        return found
    return [name]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RasterError(f"the list of scenes {path} cannot be read ({error})") from error
    names = [line.strip() for line in text.splitlines()]
    kept = [name for name in names if name and not name.startswith("#")]
    if not kept:
        raise RasterError(f"the list of scenes {path} names none; write one a line")
    return kept


def is_remote(scene: str) -> bool:
    """Return whether a scene is a URL or another dataset name of GDAL, not a path."""
    return "://" in scene or scene.startswith("/vsi")


def stem_of(scene: str) -> str:
    """Return the name of a scene without folders, suffix and query."""
    path = unquote(urlsplit(scene).path) if "://" in scene else scene
    return Path(path).stem


def find_masks(scenes: Sequence[str], output: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the mask of each scene: one file, or a file a scene in a folder or by a pattern.

    Raises:
        click.UsageError: several scenes would give one file.
    """
    # Any other suffix is part of a folder's name, such as masks.2026.
    names_mask = Path(output).suffix.lower() in suffixes
    if STEM in output:
        masks = [Path(output.replace(STEM, stem_of(scene))) for scene in scenes]
    elif names_folder(output) or (len(scenes) > 1 and not names_mask):
        masks = [Path(output) / f"{stem_of(scene)}.tif" for scene in scenes]
    elif len(scenes) > 1:
        raise click.UsageError(
            f"several scenes need a folder or a pattern with {STEM}, got -o {output}"
        )
    else:
        masks = [Path(output)]
    if len(set(masks)) < len(masks):
        raise click.UsageError("two scenes have the same name, so their masks would be one file")
    return masks


def names_folder(output: str) -> bool:
    """Return whether an output names a folder, which may not be there yet, whatever the scenes."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def in_standing_folder(path: Path) -> Path:
    """Return a name of its own for an output in the nearest folder that is there already."""
    folder = next(folder for folder in path.parents if folder.is_dir())
    return folder / "_".join(path.relative_to(folder).parts)


def place_beside(scenes: Sequence[str], outputs: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the other outputs of each scene, by option; those that were not asked for are None.

    Raises:
        click.UsageError: several scenes would give one file.
    """
    if len(scenes) > 1:
        for name, pattern in outputs.items():
            if pattern is not None and STEM not in pattern:
                raise click.UsageError(
                    f"--{name} needs {STEM} in its name for several scenes, got {pattern}"
                )
    return [
        {
            name: None if pattern is None else pattern.replace(STEM, stem_of(scene))
            for name, pattern in outputs.items()
        }
        for scene in scenes
    ]
