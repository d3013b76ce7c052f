"""Scoring a bundle on labelled images: whole scenes are stitched before they are scored."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.reading import check_label, read_label
from cvmh.errors import ConfigError
from cvmh.files import make_folder, write_complete
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.metrics import Confusion, Scores, count_confusion, score
from cvmh.models.bundle import Bundle
from cvmh.predict import predict_raster
from cvmh.predict.blend import FULL_SCORE
from cvmh.progress import Progress, silent
from cvmh.report.observing import Block, Observer
from cvmh.report.page import score_page

# All classes, all labelled pixels that have data, one scale, no test-time augmentation.
PROTOCOL = "full"
ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found: one entry of scores a protocol, in the order asked for."""

    scores: tuple[Scores, ...]


def evaluate(
    bundle: Bundle,
    data: SegmentationData,
    *,
    split: str = "test",
    device: str = "auto",
    bands: Sequence[int] | None = None,
    observers: Sequence[Observer] = (),
    progress: Progress = silent,
) -> Evaluation:
    """Predict every image of a split as a whole scene and score all of them together.

    One confusion matrix is accumulated over the split. Pixels that are labelled 255, and pixels
    where the image has no data, do not count.

    Args:
        bundle: the trained network.
        data: labelled images with the bundle's classes.
        split: which of them.
        device: "auto", "cpu", "cuda" ...
        bands: bands of the images, numbered from 1, in the network's order; default by name.
        observers: shown every block of every scene; with none, no confidence is computed.
        progress: receives the images that are done.

    Raises:
        ConfigError: the bundle and the data set have different classes.
        DataError: the split is empty, or a label does not fit its image.
        RasterError: an image cannot be read or does not fit the bundle.
    """
    if data.classes.names != bundle.card.classes.names:
        raise ConfigError(
            f"the bundle knows the classes {', '.join(bundle.card.classes.names)}, but data set "
            f"{data.root} has {', '.join(data.classes.names)}; they must be the same, in one order"
        )
    images = data.of_split(split)
    total = np.zeros((len(data.classes), len(data.classes)), dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="cvmh-") as folder:
        mask = Path(folder) / "mask.tif"
        confidence = Path(folder) / "confidence.tif" if observers else None
        for done, image in enumerate(images, start=1):
            predict_raster(
                image.image,
                mask,
                bundle,
                device=device,
                bands=bands,
                confidence=confidence,
                overwrite=True,
                warn=_ignore,
            )
            for block in read_blocks(image, mask, data, confidence=confidence):
                total += count_confusion(block.truth_HW, block.guess_HW, len(data.classes))
                for observer in observers:
                    observer.add(block)
            progress("evaluate", done, len(images), "images")
    return Evaluation(scores=(score(total, data.classes, protocol=PROTOCOL, split=split),))


def count_scene(image: LabelledImage, mask: Path, data: SegmentationData) -> Confusion:
    """Return the confusion matrix of one scene's mask, read a block of rows at a time."""
    num_classes = len(data.classes)
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    for block in read_blocks(image, mask, data):
        total += count_confusion(block.truth_HW, block.guess_HW, num_classes)
    return total


def read_blocks(
    image: LabelledImage, mask: Path, data: SegmentationData, *, confidence: Path | None = None
) -> Iterator[Block]:
    """Yield the rows of a scene with its label, its mask and, if given, its confidence.

    Raises:
        DataError: the label does not fit its image.
    """
    with Raster(image.label) as label, Raster(mask) as predicted:
        check_label(label, predicted, data.encoding)
        for row in range(0, label.height, ROWS_AT_ONCE):
            window = Window(row, 0, min(ROWS_AT_ONCE, label.height - row), label.width)
            truth = read_label(label, data.encoding, window)
            guess = predicted.read(window)[0]
            truth[guess == NODATA_ID] = NODATA_ID
            yield Block(
                image=image,
                window=window,
                truth_HW=truth,
                guess_HW=guess,
                confidence_HW=_read_confidence(confidence, window),
            )


def _read_confidence(path: Path | None, window: Window) -> NDArray[np.float32]:
    if path is None:
        return np.full((window.height, window.width), np.nan, dtype=np.float32)
    with Raster(path) as raster:
        steps = raster.read(window)[0]
    shares = steps.astype(np.float32) / np.float32(FULL_SCORE)
    return np.where(steps == NODATA_ID, np.float32(np.nan), shares)


def write_scores(folder: Path, scores: Sequence[Scores], *, title: str) -> None:
    """Write ``scores.json`` and ``report.html`` into a folder.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    make_folder(folder)
    content = json.dumps([entry.to_json() for entry in scores], indent=1) + "\n"
    write_complete(folder / "scores.json", content)
    write_complete(folder / "report.html", score_page(scores, title=title))


def _ignore(message: str) -> None:
    """Take no notice: every image of a set has the ground sampling distance of the set."""
