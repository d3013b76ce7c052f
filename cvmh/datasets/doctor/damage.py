"""Files that cannot be read, and labels or images that hold nothing."""

from collections.abc import Iterator

import numpy as np

from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import Finding, Place, places_of

# A label of one class is suspicious only where it is an exception in its set ...
MOST_SINGLE = 0.02
# ... whose labels usually show so many classes.
USUAL_CLASSES = 3


def find_damaged(examination: Examination) -> Iterator[Finding]:
    """Name the files that cannot be opened or read to their end."""
    for facts in examination.images:
        for path, message in facts.faults:
            yield Finding(
                code="damaged-file",
                severity="error",
                what=message.replace(f"{examination.data.root}/", ""),
                fix="fetch or copy the file again, or take the image out of the set",
                places=(Place(file=path),),
            )


def find_empty_labels(examination: Examination) -> Iterator[Finding]:
    """Name labels that label nothing, or only one class where that is an exception."""
    read = [f for f in examination.images if f.labels is not None and not f.faults]
    for facts in read:
        if facts.labels is not None and not facts.labels.labelled and not facts.labels.num_unknown:
            yield Finding(
                code="empty-label",
                severity="warning",
                what=f"no pixel of {facts.entry.label.name} has a class, all are ignored",
                fix="fetch the label again, or take the image out of the set",
                places=places_of([facts.entry.label]),
                counts={"pixels": facts.labels.ignored},
            )
    yield from _single_valued(examination, read)


def find_empty_images(examination: Examination) -> Iterator[Finding]:
    """Name images without a single valid pixel."""
    for facts in examination.images:
        if facts.bands is not None and not facts.faults and not facts.bands.count.any():
            yield Finding(
                code="empty-image",
                severity="warning",
                what=f"no pixel of {facts.entry.image.name} has data, all are nodata",
                fix="check the nodata value that the file declares, or take the image out",
                places=places_of([facts.entry.image]),
            )


def _single_valued(examination: Examination, read: list[ImageFacts]) -> Iterator[Finding]:
    numbers = [int(np.count_nonzero(f.labels.class_pixels)) for f in read if f.labels is not None]
    single = [facts for facts, number in zip(read, numbers, strict=True) if number == 1]
    few = len(single) <= max(1, MOST_SINGLE * len(read))
    if not few or len(read) < USUAL_CLASSES or np.median(numbers) < USUAL_CLASSES:
        return
    for facts in single:
        if facts.thumb is None or facts.labels is None or facts.labels.num_unknown:
            continue
        if _has_structure(facts, read):
            name = examination.classes.names[int(facts.labels.class_pixels.argmax())]
            yield Finding(
                code="single-valued-label",
                severity="warning",
                what=(
                    f"{facts.entry.label.name} holds one class only ('{name}') though its image "
                    "shows as much as the others"
                ),
                fix="look at it beside its image; fetch the label again if it is damaged",
                places=places_of([facts.entry.label]),
                counts={"pixels": facts.labels.labelled},
            )


def _has_structure(facts: ImageFacts, read: list[ImageFacts]) -> bool:
    """True if the image varies no less than half of what is usual in its set."""
    spreads = [f.bands.std.mean() for f in read if f.bands is not None and f.bands.count.any()]
    own = facts.bands.std.mean() if facts.bands is not None else 0.0
    return bool(own >= 0.5 * np.median(spreads))
