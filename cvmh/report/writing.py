"""Leaving an evaluation in a folder: its scores for programs, its page for people."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvmh.errors import OutputError
from cvmh.files import make_folder, write_complete
from cvmh.models.bundle import Bundle, versions
from cvmh.report.areas import estimate_evaluation, estimate_split
from cvmh.report.evaluation import Evaluation
from cvmh.report.observing import Block
from cvmh.report.page import Findings, evaluation_page
from cvmh.report.reliability import ReliabilityObserver
from cvmh.report.run_folder import read_run_folder
from cvmh.report.window_pictures import draw_windows
from cvmh.report.windows import ExtremeWindows

# What an evaluation leaves in its folder.
SCORES, PAGE = "scores.json", "report.html"


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder in which the scores of another evaluation would be replaced.

    Predictions of an evaluation that was interrupted may be there.

    Raises:
        OutputError: it holds scores or a page and nobody asked to replace them, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--out must be a folder, but {folder} is a file; name another one")
    there = [name for name in (SCORES, PAGE) if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(
            f"{folder} holds {' and '.join(there)} of another evaluation; choose another --out, or "
            "replace them with --overwrite"
        )


class PageObserver:
    """Takes note of what the page of an evaluation shows beside the scores.

    What it keeps does not grow with the number or size of the scenes.

    Args:
        num_classes: the number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.windows = ExtremeWindows()
        self.reliability = ReliabilityObserver(num_classes)
        self.num_images = 0

    def add(self, block: Block) -> None:
        """Look at a block."""
        self.num_images += block.window.row == 0
        self.windows.add(block)
        self.reliability.add(block)


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    bundle: Bundle,
    seen: PageObserver,
    *,
    bands: Sequence[int] | None = None,
    command: str = "",
    now: datetime | None = None,
) -> None:
    """Write ``scores.json`` and ``report.html`` into a folder.

    The entries of ``scores.json`` are the scores of the protocols, each with ``area_estimates``,
    null where the bundle carries no sample or the labels are eroded; the first one, whose images
    were looked at, also has ``reliability``: of all pixels, and of those predicted as each class.

    Args:
        folder: it is made if it is not there.
        evaluation: what was found.
        bundle: what was evaluated.
        seen: the observer that was shown the evaluation's blocks.
        bands: bands of the images, numbered from 1, in the network's order; default by name.
        command: the command line, for the page.
        now: the time that the page tells; default the present.

    Raises:
        OutputError: the folder cannot be made or written.
        RasterError: an image cannot be read for the pictures of the page.
    """
    make_folder(folder)
    entries = _entries(evaluation, bundle, seen)
    write_complete(folder / SCORES, json.dumps(entries, indent=1) + "\n")
    page = evaluation_page(
        _findings(evaluation, bundle, seen, bands, command, now or datetime.now(UTC))
    )
    write_complete(folder / PAGE, page)


def _entries(evaluation: Evaluation, bundle: Bundle, seen: PageObserver) -> list[dict[str, Any]]:
    entries = []
    for scores, ground in zip(evaluation.scores, evaluation.grounds, strict=True):
        areas = estimate_split(scores, bundle.card, ground=ground)
        found = None if areas is None else areas.to_json()
        entries.append({**scores.to_json(), "area_estimates": found})
    overall, by_class = seen.reliability.found, seen.reliability.by_class
    entries[0]["reliability"] = {
        "overall": overall.model_dump(mode="json"),
        "classes": {
            name: one.model_dump(mode="json")
            for name, one in zip(evaluation.data.classes.names, by_class, strict=True)
        },
    }
    return entries


def _findings(
    evaluation: Evaluation,
    bundle: Bundle,
    seen: PageObserver,
    bands: Sequence[int] | None,
    command: str,
    now: datetime,
) -> Findings:
    card, data = bundle.card, evaluation.data
    shown = bands or data.bands_named(card.band_names)
    splits = ", ".join(dict.fromkeys(entry.split for entry in evaluation.scores))
    is_own = data.layout == "folder"
    name = (data.root.name if is_own else data.name) or data.name
    about = {
        "bundle": str(bundle.path or ""),
        "network": card.model,
        "trained on": card.dataset,
        "data set": f"{data.name}, {data.layout} in {data.root}",
        "split": f"{splits} ({seen.num_images} image{'s' * (seen.num_images != 1)})",
        "date": now.strftime("%Y-%m-%d %H:%M %Z"),
        "versions": ", ".join(f"{part} {number}" for part, number in versions().items()),
        "command": command,
    }
    return Findings(
        title=f"{card.model} on {name}, split {splits}",
        about=about,
        # A folder of one's own may bear the name of a known set.
        dataset="" if is_own else data.name,
        classes=data.classes,
        scores=evaluation.scores,
        reliability=seen.reliability.found,
        by_class=seen.reliability.by_class,
        calibration=card.calibration,
        temperature=card.temperature,
        areas=estimate_evaluation(evaluation, card),
        worst=draw_windows(seen.windows.worst, data.classes, shown),
        best=draw_windows(seen.windows.best, data.classes, shown),
        run=None if bundle.path is None else read_run_folder(bundle.path.parent),
    )
