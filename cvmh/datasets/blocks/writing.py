"""Writing a planned split: ``split.csv``, and a small VRT for each block of a scene."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from cvmh.datasets.blocks.plan import SplitPlan
from cvmh.datasets.doctor.structure import UNUSED, look_at_folder
from cvmh.datasets.folder import read_about
from cvmh.datasets.labelled import SegmentationData
from cvmh.datasets.split_table import read_rows
from cvmh.errors import DataError, OutputError
from cvmh.files import write_complete
from cvmh.geo.window_file import write_window
from cvmh.progress import Progress, silent

# How the blocks of a scene are named.
BLOCK = re.compile(r"(?P<stem>.+)_r\d{5,}_c\d{5,}")


def write_split(
    root: Path, plan: SplitPlan, *, overwrite: bool = False, progress: Progress = silent
) -> None:
    """Write ``split.csv`` into a folder data set, and the blocks of scenes beside the scenes.

    Blocks are VRT files, which take no space: the scenes stay where they are. Those of an earlier
    split are removed. Which labels are eroded is kept; ``about.json`` no longer names a published
    split. ``split.csv`` comes last.

    Raises:
        OutputError: there is a split.csv already, or a file cannot be written.
        DataError: ``about.json`` cannot be read.
    """
    target, about = root / "split.csv", root / "about.json"
    check_target(target, overwrite=overwrite)
    eroded = _eroded_stems(target)
    if about.exists():
        own = read_about(about).model_copy(update={"splits": "own"})
        write_complete(about, own.model_dump_json(indent=1) + "\n")
    for old in list_blocks(root):
        old.unlink()
    rows = []
    scenes: dict[str, None] = {}
    for done, (piece, split) in enumerate(zip(plan.pieces, plan.splits, strict=True), start=1):
        rows.append((piece.stem, split, piece.facts.entry.stem))
        if piece.window is not None:
            entry = piece.facts.entry
            scenes[entry.stem] = None
            for source in (entry.image, entry.label):
                write_window(source.with_name(f"{piece.stem}.vrt"), source, piece.window)
            progress("blocks", done, len(plan.pieces), "blocks")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("stem", "split", "labels") if eroded else ("stem", "split"))
    for stem, split, scene in [*rows, *((stem, UNUSED, stem) for stem in scenes)]:
        labels = ("eroded" if scene in eroded else "full",) if eroded else ()
        table.writerow((stem, split, *labels))
    write_complete(target, text.getvalue())


def open_unsplit(root: Path) -> SegmentationData:
    """Return the images and labels of a folder data set, without the blocks of an earlier split.

    Raises:
        DataError: the folder is no data set, or a part of it is missing.
    """
    if not root.is_dir():
        raise DataError(f"data set folder {root} does not exist")
    data, findings = look_at_folder(root, is_split=False)
    for finding in findings:
        if finding.severity == "error":
            raise DataError(f"{root}: {finding.what}; {finding.fix}")
    blocks = set(list_blocks(root))
    images = tuple(image for image in data.images if image.image not in blocks)
    if not images:
        raise DataError(f"{root} holds no image with a label of the same name")
    return replace(data, images=images)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace a split.csv unasked.

    Raises:
        OutputError: it is there.
    """
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it")


def _eroded_stems(table: Path) -> set[str]:
    """Return the images of which an earlier table says that they have only an eroded label."""
    try:
        return {row.stem for row in read_rows(table) if row.is_eroded}
    except DataError:
        # There is none, or none that says anything.
        return set()


def list_blocks(root: Path) -> list[Path]:
    """Return the blocks that an earlier split left: VRT files beside the scene they name."""
    found = []
    for part in ("images", "masks"):
        files = sorted(path for path in (root / part).iterdir() if path.is_file())
        stems = {path.stem for path in files}
        for path in files:
            match = BLOCK.fullmatch(path.stem)
            if match and path.suffix.lower() == ".vrt" and match["stem"] in stems:
                found.append(path)
    return found
