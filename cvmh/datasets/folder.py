"""A data set as a folder: ``images/``, ``masks/``, ``classes.json`` and ``split.csv``."""

import csv
from collections.abc import Iterable
from pathlib import Path

from cvmh.classes import ClassTable
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.errors import DataError

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
    entries = []
    for stem, split in _read_splits(root / "split.csv"):
        for kind, files in (("image", images), ("mask", labels)):
            if stem not in files:
                raise DataError(
                    f"{root / 'split.csv'} lists '{stem}', but {kind}s/ holds no {kind} of that "
                    f"name ({', '.join(SUFFIXES)})"
                )
        entries.append(
            LabelledImage(stem=stem, image=images[stem], label=labels[stem], split=split)
        )
    return SegmentationData(name=root.name, root=root, classes=classes, images=tuple(entries))


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in files:
            raise DataError(
                f"{folder} holds both {files[path.stem].name} and {path.name}; keep one"
            )
        files[path.stem] = path
    return files


def _read_splits(path: Path) -> Iterable[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing; write it with the columns stem,split (split: train, val or test)"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})") from error
    if not rows or not {"stem", "split"} <= set(rows[0][1]):
        raise DataError(f"{path} must have the columns stem,split and at least one row")
    splits: dict[str, str] = {}
    for line, row in rows:
        # A row that is too short holds None.
        stem, split = ((row[column] or "").strip() for column in ("stem", "split"))
        if not stem or not split:
            raise DataError(
                f"{path} must name a stem and its split in every row, line {line} does not"
            )
        if stem in splits:
            raise DataError(f"{path} lists '{stem}' twice")
        splits[stem] = split
    return splits.items()
