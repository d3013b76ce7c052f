"""How the classes are spread over the splits."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.finding import Finding

# Of the labelled pixels of the training split.
RARE = 0.001


def find_class_shares(examination: Examination) -> Iterator[Finding]:
    """Name classes that a split lacks, and those that are rare."""
    by_split = {
        split: examination.class_pixels(images) for split, images in examination.by_split().items()
    }
    everywhere = examination.class_pixels()
    train = by_split.get("train")
    if train is None:
        return
    for split in ("train", "val"):
        images = examination.by_split().get(split, [])
        read = [facts.labels for facts in images]
        ignored = [labels and not labels.labelled and not labels.num_unknown for labels in read]
        if images and all(ignored):
            yield _nothing_labelled(split)
    if not train.any():
        return
    for number, name in enumerate(examination.classes.names):
        if not train[number]:
            yield _absent_from_training(name, int(everywhere[number]))
        elif train[number] < RARE * train.sum():
            yield _rare(name, number, train)
    val = by_split.get("val")
    if val is not None and val.any():
        missing = [
            name
            for number, name in enumerate(examination.classes.names)
            if train[number] and not val[number]
        ]
        for name in missing:
            yield Finding(
                code="class-not-validated",
                severity="warning",
                what=f"class '{name}' has pixels in split 'train' but none in split 'val'",
                fix="put an image that shows it into 'val', or its score cannot be known",
            )


def _nothing_labelled(split: str) -> Finding:
    return Finding(
        code="nothing-labelled",
        severity="error",
        what=f"no pixel of split '{split}' has a class, all are ignored",
        fix="check the ids of the labels, and the value that they declare as nodata",
    )


def _absent_from_training(name: str, elsewhere: int) -> Finding:
    return Finding(
        code="class-not-trained",
        severity="error" if elsewhere else "warning",
        what=(
            f"class '{name}' has no pixel in split 'train'"
            + (f" but {elsewhere:,} in the others" if elsewhere else " nor in any other")
        ),
        fix=(
            "put images that show it into 'train'"
            if elsewhere
            else "check the ids of the labels, or leave the class out of the table"
        ),
        counts={"pixels_elsewhere": elsewhere},
    )


def _rare(name: str, number: int, train: NDArray[np.int64]) -> Finding:
    share = float(train[number] / train.sum())
    return Finding(
        code="rare-class",
        severity="note",
        what=f"class '{name}' has {train[number]:,} pixels in split 'train', {share:.3%} of it",
        fix="sample it more often, weigh it in the loss, or label more of it",
        counts={"pixels": int(train[number]), "share": round(share, 6)},
    )
