"""A folder data set as a list of files: what is missing, left over, or contradicts itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.doctor.finding import Finding, Place, Severity, counted, places_of
from cvmh.datasets.folder import has_ending, list_rasters
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.split_table import Line, read_lines
from cvmh.errors import CvmhError, DataError
from cvmh.geo.raster import Raster

SPLITS = ("train", "val", "test")
# The split of images that are used for nothing, such as those between two splits.
UNUSED = "unused"
# Where there is no class table, the ids of so many labels serve, read at so many pixels a side.
LABELS_TRIED, SAMPLE = 64, 256

Files = Mapping[str, Path]


class Rows(NamedTuple):
    """What split.csv says: the split of each stem, in order, and what is wrong with the file."""

    splits: dict[str, str]
    findings: list[Finding]


def look_at_folder(root: Path, *, is_split: bool = True) -> tuple[SegmentationData, list[Finding]]:
    """Return what a folder data set has, however incomplete, and what is wrong with its files.

    Args:
        root: the folder.
        is_split: follow split.csv; otherwise no image has a split yet.
    """
    findings: list[Finding] = []
    images = _files(root / "images", findings)
    labels = _files(root / "masks", findings)
    findings += _partners(images, labels)
    rows = _read_rows(root / "split.csv", images, labels) if is_split else Rows({}, [])
    findings += rows.findings
    stems = [s for s in rows.splits if s in images and s in labels]
    if not rows.splits:
        stems = [stem for stem in images if stem in labels]
    entries = tuple(
        LabelledImage(
            stem=stem, image=images[stem], label=labels[stem], split=rows.splits.get(stem, "none")
        )
        for stem in stems
    )
    classes = _classes(root / "classes.json", list(labels.values()), findings)
    return SegmentationData(name=root.name, root=root, classes=classes, images=entries), findings


def _files(folder: Path, findings: list[Finding]) -> Files:
    if not folder.is_dir():
        findings.append(
            Finding(
                code="missing-folder",
                severity="error",
                what=f"folder {folder.name}/ does not exist",
                fix="a folder data set has images/, masks/, classes.json and split.csv",
                places=places_of([folder]),
            )
        )
        return {}
    try:
        paths = list_rasters(folder)
    except DataError as error:
        findings.append(
            Finding(
                code="unreadable-folder",
                severity="error",
                what=str(error),
                fix="check who may read it, or copy the data set anew",
                places=places_of([folder]),
            )
        )
        return {}
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            findings.append(
                Finding(
                    code="two-files",
                    severity="error",
                    what=f"{folder.name}/ holds both {files[path.stem].name} and {path.name}",
                    fix="keep one of the two",
                    places=places_of([files[path.stem], path]),
                )
            )
        files.setdefault(path.stem, path)
    return files


def _partners(images: Files, labels: Files) -> Iterator[Finding]:
    alone = [images[stem] for stem in images if stem not in labels]
    if alone:
        yield Finding(
            code="missing-label",
            severity="error",
            what=f"{counted(len(alone), 'image')} without a label of the same name in masks/",
            fix="add the labels, or take the images out of images/ and split.csv",
            places=places_of(alone),
            counts={"files": len(alone)},
        )
    alone = [labels[stem] for stem in labels if stem not in images]
    if alone:
        yield Finding(
            code="missing-image",
            severity="warning",
            what=f"{counted(len(alone), 'label')} without an image of the same name in images/",
            fix="add the images, or take the labels out of masks/",
            places=places_of(alone),
            counts={"files": len(alone)},
        )


def _read_rows(path: Path, images: Files, labels: Files) -> Rows:
    rows, problem = _parse(path)
    if problem is not None:
        return Rows({}, [problem])
    splits: dict[str, str] = {}
    findings = []
    for line, stem, split, _ in rows:
        if not stem or not split:
            findings.append(_row_finding(path, line, f"line {line} lacks a stem or a split"))
        elif splits.get(stem, split) != split:
            where = f"'{splits[stem]}' and '{split}'"
            findings.append(_row_finding(path, line, f"'{stem}' is in splits {where}"))
        elif stem in splits:
            findings.append(_row_finding(path, line, f"'{stem}' is listed twice"))
        else:
            splits[stem] = split
            if stem not in images and stem not in labels:
                hint = ", for a stem has no ending" if has_ending(stem) else ""
                what = f"'{stem}' is listed, but no file has its name{hint}"
                findings.append(_row_finding(path, line, what))
    return Rows(splits, [*findings, *_judge_splits(path, splits, images)])


def _judge_splits(path: Path, splits: dict[str, str], images: Files) -> Iterator[Finding]:
    unlisted = [images[stem] for stem in images if stem not in splits]
    if unlisted:
        yield Finding(
            code="unlisted-image",
            severity="warning",
            what=f"{counted(len(unlisted), 'image')} not listed in split.csv, so not used",
            fix="add a row stem,split for each, or take the files away",
            places=places_of(unlisted),
            counts={"files": len(unlisted)},
        )
    strange = sorted(set(splits.values()) - {*SPLITS, UNUSED})
    if strange:
        yield Finding(
            code="strange-split",
            severity="warning",
            what=f"split.csv names splits other than train, val and test: {', '.join(strange)}",
            fix="rename them, or name them with data.train_split and data.val_split",
            places=places_of([path]),
        )
    needed: tuple[tuple[str, Severity], ...] = (("train", "error"), ("val", "warning"))
    for split, severity in needed:
        if splits and split not in splits.values() and not strange:
            yield Finding(
                code="missing-split",
                severity=severity,
                what=f"no image is in split '{split}'",
                fix="write split.csv anew with 'cvmh data split'",
                places=places_of([path]),
            )


def _parse(path: Path) -> tuple[list[Line], Finding | None]:
    if not path.exists():
        return [], _no_rows(path, "split.csv is missing")
    try:
        return read_lines(path), None
    except DataError as error:
        return [], _no_rows(path, str(error))


def _no_rows(path: Path, what: str) -> Finding:
    return Finding(
        code="split-table",
        severity="error",
        what=what,
        fix="write it with 'cvmh data split', or by hand with the columns stem,split",
        places=places_of([path]),
    )


def _row_finding(path: Path, line: int, what: str) -> Finding:
    return Finding(
        code="split-table",
        severity="error",
        what=f"split.csv: {what}",
        fix="correct the row, one row a stem",
        places=(Place(file=path, row=line),),
        counts={"line": line},
    )


def _classes(path: Path, labels: list[Path], findings: list[Finding]) -> ClassTable:
    try:
        return ClassTable.read(path)
    except CvmhError as error:
        highest = _highest_id(labels)
        findings.append(
            Finding(
                code="class-table",
                severity="error",
                what=str(error),
                fix="write names and colours of the classes"
                + (f"; the labels hold ids up to {highest}" if labels else ""),
                places=places_of([path]),
                counts={"highest": highest},
            )
        )
    grey = [round(255 * number / max(1, highest)) for number in range(highest + 1)]
    return ClassTable(
        tuple(SegClass(id=n, name=f"class {n}", rgb=(v, v, v)) for n, v in enumerate(grey))
    )


def _highest_id(labels: list[Path]) -> int:
    highest = 0
    for path in labels[:LABELS_TRIED]:
        try:
            with Raster(path) as label:
                values = label.read_small([1], most=SAMPLE)
        except CvmhError:
            # Told of by the check of damaged files.
            continue
        below = values[(values >= 0) & (values < NODATA_ID)]
        highest = max(highest, int(below.max(initial=0))) if np.isfinite(below).all() else highest
    return highest
