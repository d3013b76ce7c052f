"""Counting the strips of predicted scenes for several protocols in one pass."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets import LabelledImage
from cvmh.errors import DataError
from cvmh.geo.raster import Raster
from cvmh.metrics import (
    BoundaryCounts,
    Scores,
    count_boundaries,
    count_confusion,
    score,
    score_boundaries,
)
from cvmh.metrics.boundary import halo_of
from cvmh.metrics.protocols import EROSION_RADIUS
from cvmh.report.cases import Case, LabelKind
from cvmh.report.strips import Ids, Strip, read_strips

LABELS: dict[LabelKind, Callable[[Strip], Ids]] = {
    LabelKind.GIVEN: lambda strip: strip.given,
    LabelKind.ERODED: lambda strip: strip.eroded,
    LabelKind.MADE: lambda strip: strip.made,
}


@dataclass(frozen=True)
class Job:
    """A prediction that one or several protocols need: of an image, with or without TTA."""

    image: Path
    tta: bool


class Tally:
    """The counts of one protocol.

    Args:
        case: what it scores.
        width: of boundary scores in pixels, None for none; eroded labels have no borders to score.
    """

    def __init__(self, case: Case, width: int | None) -> None:
        num_classes = len(case.data.classes)
        self.case = case
        self.jobs = {Job(image.image, case.facts.tta): image for image in case.images}
        self.width = width if case.has_full_labels else None
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.boundaries = np.zeros((num_classes, 7), dtype=np.int64)
        # Square metres of the cells of the confusion; NaN once a scene has no scale.
        self.areas = np.zeros((num_classes, num_classes))
        # Metres a pixel of the scenes that say so.
        self.resolutions: list[float] = []

    @property
    def halo(self) -> int:
        """How many rows around a strip the counts depend on."""
        erosion = EROSION_RADIUS if self.case.kind is LabelKind.MADE else 0
        return max(erosion, 0 if self.width is None else halo_of(self.width))

    @property
    def gsd(self) -> float | None:
        """Metres a pixel: what the data set declares, else the median of what its scenes say."""
        return self.case.data.gsd or (median(self.resolutions) if self.resolutions else None)

    @property
    def ground(self) -> NDArray[np.float64] | None:
        """Square metres (K, K) of the cells of the confusion, None where no one tells the scale."""
        declared = self.case.data.gsd
        if declared is not None:
            return self.confusion.astype(np.float64) * declared**2
        return None if np.isnan(self.areas).any() else self.areas

    def scores(self) -> Scores:
        """Return the scores of all that was counted.

        Raises:
            DataError: nothing was.
        """
        case, classes = self.case, self.case.data.classes
        if not self.confusion.any():
            first = case.images[0]
            label = first.eroded if case.kind is LabelKind.ERODED else first.label
            raise DataError(
                f"protocol '{case.protocol}' has nothing to score, for no pixel of split "
                f"'{case.split}' of {case.data.name} is labelled where the image has data; look at "
                f"its labels, such as {label}"
            )
        boundary = None
        if self.width is not None:
            boundary = score_boundaries(
                self.boundaries,
                classes,
                width=self.width,
                gsd=self.gsd,
                left_out=case.facts.left_out,
            )
        return score(
            self.confusion,
            classes,
            protocol=case.protocol,
            split=case.split,
            facts=case.facts,
            boundary=boundary,
        )


def count_scene(
    job: Job,
    mask: Path,
    tallies: Sequence[Tally],
    look: Callable[[LabelledImage, Strip], None] = lambda image, strip: None,
) -> None:
    """Add the mask of a scene to all tallies that need it, each label read once.

    Args:
        job: what was predicted.
        mask: the prediction.
        tallies: of the protocols; those that do not need the job are left as they are.
        look: shown every strip.

    Raises:
        DataError: a label does not fit its image, or holds what its encoding does not know.
    """
    wanting = [tally for tally in tallies if job in tally.jobs]
    data, image = wanting[0].case.data, wanting[0].jobs[job]
    kinds = {tally.case.kind for tally in wanting}
    width = next((tally.width for tally in wanting if tally.width is not None), None)
    num_classes = len(data.classes)
    with Raster(mask) as raster:
        gsd = raster.gsd
    for tally in wanting:
        tally.resolutions += [] if gsd is None else [gsd]
    pixel = math.nan if gsd is None else gsd**2
    strips = read_strips(
        image,
        mask,
        data,
        halo=max(tally.halo for tally in wanting),
        is_eroded_read=LabelKind.ERODED in kinds,
    )
    for strip in strips:
        guess = strip.guess
        counts = {kind: count_confusion(LABELS[kind](strip), guess, num_classes) for kind in kinds}
        borders = None if width is None else count_borders(strip, num_classes, width)
        for tally in wanting:
            tally.confusion += counts[tally.case.kind]
            tally.areas += counts[tally.case.kind] * pixel
            if tally.width is not None and borders is not None:
                tally.boundaries += borders
        look(image, strip)


def count_borders(strip: Strip, num_classes: int, width: int) -> BoundaryCounts:
    """Count the borders of classes in a strip, as far as there is a label and data."""
    label = np.where(strip.guess_HW == NODATA_ID, np.uint8(NODATA_ID), strip.label_HW)
    return count_boundaries(label, strip.guess_HW, num_classes, width=width, core=strip.core)
