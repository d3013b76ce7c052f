"""A data set as a folder: ``images/``, ``masks/``, ``classes.json`` and ``split.csv``.

There may also be ``masks_eroded/``, labels that leave out the borders of classes, and
``about.json``, which says what the files do not; 'cvmh data prepare' writes both.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from cvmh.classes import ClassTable
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.split_table import read_rows
from cvmh.errors import DataError
from cvmh.settings import Settings

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".vrt")


def open_folder(root: Path) -> SegmentationData:
    """Find the images, labels, classes and splits of a folder data set; no pixel is read.

    Raises:
        DataError: the folder or a part of it is missing, or an image has no label.
        ConfigError: ``classes.json`` is missing or wrong.
    """
    for part in (root, root / "images", root / "masks"):
        if not part.is_dir():
            raise DataError(
                f"data set folder {part} does not exist; a folder data set has images/, masks/, "
                "classes.json and split.csv"
            )
    classes = ClassTable.read(root / "classes.json")
    labels = _by_stem(root / "masks")
    images = _by_stem(root / "images")
    eroded = _by_stem(root / "masks_eroded") if (root / "masks_eroded").is_dir() else {}
    entries = []
    for stem, split, is_eroded in read_rows(root / "split.csv"):
        for kind, files in (("image", images), ("mask", labels)):
            if stem not in files:
                hint = "; leave the ending out" if has_ending(stem) else ""
                raise DataError(
                    f"{root / 'split.csv'} lists '{stem}', but {kind}s/ holds no {kind} of that "
                    f"name ({', '.join(SUFFIXES)}){hint}"
                )
        entries.append(
            LabelledImage(
                stem=stem,
                image=images[stem],
                label=labels[stem],
                split=split,
                eroded=labels[stem] if is_eroded else eroded.get(stem),
            )
        )
    about = read_about(root / "about.json")
    return SegmentationData(
        name=about.name or root.name,
        root=root,
        classes=classes,
        images=tuple(entries),
        label_set="full" if any(entry.has_full_label for entry in entries) else "eroded",
        splits=about.splits,
        gsd=about.gsd,
    )


def list_rasters(folder: Path) -> list[Path]:
    """Return the files of a folder that may be images or labels, in order.

    Hidden ones are not: macOS leaves ``._tile.tif`` beside ``tile.tif`` on foreign disks.

    Raises:
        DataError: the folder cannot be looked into.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read ({error.strerror})") from error
    return [path for path in paths if has_ending(path.name) and not path.name.startswith(".")]


def has_ending(name: str) -> bool:
    """Return whether a name ends as files of images do."""
    return name.lower().endswith(SUFFIXES)


class About(Settings):
    """What ``about.json`` says of a data set; ``source`` is for people."""

    name: str | None = None
    gsd: float | None = None
    splits: str = "own"
    source: str = ""


def read_about(path: Path) -> About:
    """Read ``about.json``, which need not be there.

    Raises:
        DataError: it holds something else.
    """
    try:
        return About.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return About()
    except (OSError, ValueError, ValidationError) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path} must hold name, gsd, splits and source ({line})") from error


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_rasters(folder):
        if path.stem in files:
            raise DataError(
                f"{folder} holds both {files[path.stem].name} and {path.name}; keep one"
            )
        files[path.stem] = path
    return files
