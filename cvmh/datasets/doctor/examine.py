"""Examining a data set: open what there is, look at it once, and ask every check."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cvmh.config import DataSettings
from cvmh.datasets.doctor.alignment import find_eroded, find_georeferences, find_shifts, find_sizes
from cvmh.datasets.doctor.copies import find_duplicates, find_shared_pixels
from cvmh.datasets.doctor.damage import find_damaged, find_empty_images, find_empty_labels
from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.finding import Finding, sort_findings
from cvmh.datasets.doctor.ground import find_overlaps
from cvmh.datasets.doctor.pictures import find_pictures
from cvmh.datasets.doctor.shares import find_class_shares
from cvmh.datasets.doctor.spectra import find_band_kinds, find_band_values, find_odd_scales
from cvmh.datasets.doctor.structure import UNUSED, look_at_folder
from cvmh.datasets.doctor.survey import survey
from cvmh.datasets.doctor.values import find_shifted_ids, find_unknown_values
from cvmh.datasets.labelled import SegmentationData
from cvmh.datasets.opening import FOLDER, open_data
from cvmh.errors import ConfigError, DataError
from cvmh.progress import Progress, silent
from cvmh.settings import validate

Check = Callable[[Examination], Iterator[Finding]]
# In the order in which findings of one severity are told.
CHECKS: tuple[Check, ...] = (
    find_damaged,
    find_sizes,
    find_pictures,
    find_shifted_ids,
    find_unknown_values,
    find_empty_labels,
    find_empty_images,
    find_shifts,
    find_georeferences,
    find_overlaps,
    find_shared_pixels,
    find_duplicates,
    find_class_shares,
    find_band_kinds,
    find_band_values,
    find_odd_scales,
    find_eroded,
)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a data set, the most severe first; without an examination none opened."""

    name: str
    root: Path
    findings: tuple[Finding, ...]
    examination: Examination | None = None

    def count(self, severity: str) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def examine(
    name: str, root: Path, *, layout: str | None = None, progress: Progress = silent
) -> Diagnosis:
    """Open a data set as far as that is possible, read it once, and say what is wrong with it.

    Args:
        name: the data set, as for training.
        root: the folder that it is in.
        layout: how its files lie, for a known data set; default recognised by looking.
        progress: receives the images that are done.

    Raises:
        ConfigError: there is no such data set or layout.
    """
    data, early = _open(name, root, layout)
    if data is None or not data.images:
        return Diagnosis(name=name, root=root, findings=sort_findings(early))
    used = tuple(image for image in data.images if image.split != UNUSED)
    examination = survey(replace(data, images=used), progress=progress)
    examination.early = early
    found = [*early, *(finding for check in CHECKS for finding in check(examination))]
    return Diagnosis(name=name, root=root, findings=sort_findings(found), examination=examination)


def _open(
    name: str, root: Path, layout: str | None
) -> tuple[SegmentationData | None, list[Finding]]:
    chosen = {} if layout is None else {"layout": layout}
    settings = validate(DataSettings, {"dataset": name, "root": root, **chosen}, source="options")
    if name == FOLDER and layout is None and root.is_dir():
        data, early = look_at_folder(root)
        try:
            return open_data(settings), early
        except (ConfigError, DataError) as error:
            # What stands in the way is mostly told already, with more of its kind.
            return data, early or [_opening_error(str(error))]
    try:
        return open_data(settings), []
    except DataError as error:
        if name == FOLDER:
            return None, [_opening_error(str(error))]
        return _open_partly(settings, _opening_error(str(error)))


def _open_partly(
    settings: DataSettings, opening: Finding
) -> tuple[SegmentationData | None, list[Finding]]:
    """Open what there is of a known data set whose files are not all there."""
    try:
        return open_data(settings.model_copy(update={"partial": True})), [opening]
    except DataError:
        return None, [opening]


def _opening_error(message: str) -> Finding:
    return Finding(
        code="not-opened",
        severity="error",
        what=message,
        fix="put the files where they are expected; data/README.md lists the layouts",
    )
