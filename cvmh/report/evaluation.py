"""Scoring a bundle on labelled images: whole scenes are stitched before they are scored."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.files import make_folder
from cvmh.metrics import Facts, Scores
from cvmh.metrics.boundary import check_width
from cvmh.models.bundle import Bundle
from cvmh.predict import predict_raster
from cvmh.progress import Progress, silent
from cvmh.report.cases import Case, LabelKind, Reopen, make_cases
from cvmh.report.observing import Observer
from cvmh.report.strips import Strip, make_block
from cvmh.report.tally import Job, Tally, count_scene

# The protocol that is for any data set.
PROTOCOL = "full"
# Borders that are off by no more than so many pixels are met, unless another width is asked for.
BOUNDARY_WIDTH = 3


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found: one entry of scores a protocol, in the order asked for.

    ``grounds`` are the square metres (K, K) of the cells of each entry's confusion, each scene by
    its own pixels; None where neither the data set nor every scene tells how large they are.
    """

    scores: tuple[Scores, ...]
    data: SegmentationData
    grounds: tuple[NDArray[np.float64] | None, ...] = field(compare=False)


def evaluate(
    bundle: Bundle,
    data: SegmentationData,
    *,
    protocols: Sequence[str] = (PROTOCOL,),
    split: str | None = None,
    reopen: Reopen | None = None,
    boundary: int | None = BOUNDARY_WIDTH,
    tta: bool = False,
    device: str = "auto",
    bands: Sequence[int] | None = None,
    observers: Sequence[Observer] = (),
    folder: Path | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Predict every image of a split as a whole scene and score all of them together.

    Each image is predicted once, and once more where some protocols average over flips and turns
    and others do not. One confusion matrix a protocol is accumulated over its images. Pixels that
    are labelled 255, and pixels where the image has no data, do not count.

    Args:
        bundle: the trained network.
        data: labelled images with the bundle's classes.
        protocols: names of :data:`cvmh.metrics.PROTOCOLS`, or "all".
        split: scored instead of the protocols' own, which mostly is "test".
        reopen: opens the data set by another split table, where a protocol wants one.
        boundary: the width of boundary scores in pixels, if they are wanted; they need full labels.
        tta: average over flips and turns in the protocols that leave it open: "full".
        device: "auto", "cpu", "cuda" ...
        bands: bands of the images, numbered from 1, in the network's order; default by name.
        observers: shown every block of the images of the first protocol, labels not eroded.
        folder: where predictions lie until the end, so that an interrupted evaluation that is
            called again goes on; it is removed at the end. Default: nothing outlives a failure.
        progress: receives the predictions that are done.
        tell: receives a line for each protocol that "all" leaves out.

    Raises:
        ConfigError: bundle and data set have different classes; a protocol is unknown, not for
            this data set, or would score what the bundle was trained on.
        DataError: the split is empty, no pixel of it is labelled, or a label does not fit its
            image.
        RasterError: an image cannot be read or does not fit the bundle.
    """
    width = None if boundary is None else check_width(boundary)
    cases = make_cases(bundle.card, data, protocols, split=split, tta=tta, reopen=reopen, tell=tell)
    if bands is None:
        bands = data.bands_named(bundle.card.band_names)
    tallies = [Tally(case, width) for case in cases]
    jobs = _in_order(tallies)
    with _workspace(folder) as place:
        for done, job in enumerate(jobs, start=1):
            shown_to = observers if job in tallies[0].jobs else ()
            own = place / hashlib.sha256(f"{job.image} {job.tta}".encode()).hexdigest()[:24]
            make_folder(own)
            mask, confidence = own / "mask.tif", own / "confidence.tif" if shown_to else None
            predict_raster(
                job.image,
                mask,
                bundle,
                device=device,
                bands=None if bands is None else tuple(bands),
                tta=job.tta,
                confidence=confidence,
                resume=True,
                overwrite=True,
                warn=_ignore,
            )
            count_scene(job, mask, tallies, _Presenter(shown_to, confidence))
            if folder is None:
                shutil.rmtree(own)
            progress("evaluate", done, len(jobs), "images")
    scores = tuple(tally.scores() for tally in tallies)
    return Evaluation(scores=scores, data=data, grounds=tuple(tally.ground for tally in tallies))


def score_mask(image: LabelledImage, mask: Path, data: SegmentationData) -> Scores:
    """Return the scores of the mask of one scene, by the protocol that is for any data set.

    Raises:
        DataError: the label does not fit the mask, labels nothing, or holds what its encoding does
            not know.
    """
    case = Case(
        protocol=PROTOCOL,
        data=data,
        split=image.split,
        images=(image,),
        kind=LabelKind.GIVEN,
        facts=Facts(is_stitched=True),
    )
    tally = Tally(case, BOUNDARY_WIDTH)
    count_scene(Job(image.image, tta=False), mask, [tally])
    return tally.scores()


@dataclass(frozen=True)
class _Presenter:
    """Shows strips to observers, with their confidence."""

    observers: Sequence[Observer]
    confidence: Path | None

    def __call__(self, image: LabelledImage, strip: Strip) -> None:
        if self.observers:
            block = make_block(image, strip, self.confidence)
            for observer in self.observers:
                observer.add(block)


def _in_order(tallies: Sequence[Tally]) -> list[Job]:
    """Return what is to be predicted; an image that is predicted twice is so in a row."""
    jobs = list(dict.fromkeys(job for tally in tallies for job in tally.jobs))
    first: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        first.setdefault(job.image, number)
    return sorted(jobs, key=lambda job: first[job.image])


@contextmanager
def _workspace(folder: Path | None) -> Iterator[Path]:
    """Give a folder for predictions; one that was named stays if the work is interrupted."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="cvmh-") as place:
            yield Path(place)
        return
    make_folder(folder)
    yield folder
    shutil.rmtree(folder)


def _ignore(message: str) -> None:
    """Take no notice: every image of a set has the ground sampling distance of the set."""
