"""Rows of a scene with its label and its mask, and the rows around them that their counts need.

Legend: H rows, W columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.reading import check_label, read_label
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.metrics import near_other_class
from cvmh.metrics.protocols import EROSION_RADIUS
from cvmh.predict.blend import FULL_SCORE
from cvmh.report.observing import Block

# Strips are so high, and lower where the scene is so wide that they would hold more pixels.
ROWS_AT_ONCE, LEAST_ROWS = 512, 64
PIXELS_AT_ONCE = 4_000_000
Ids = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Whole rows of a scene, and as many above and below as were asked for and are there.

    Args:
        window: the rows themselves.
        core: where they are in the arrays.
        label_HW: class ids of the label; 255 where it does not count.
        guess_HW: class ids of the mask; 255 where the scene has no data.
        eroded_HW: the eroded label of the data set, if it was asked for; without rows around.
    """

    window: Window
    core: slice
    label_HW: Ids
    guess_HW: Ids
    eroded_HW: Ids | None = None

    @property
    def guess(self) -> Ids:
        """The mask of the rows themselves."""
        return self.guess_HW[self.core]

    @property
    def given(self) -> Ids:
        """The label of the rows themselves, 255 where there is no data."""
        return _where_data(self.label_HW[self.core], self.guess)

    @property
    def eroded(self) -> Ids:
        """The data set's eroded label of the rows themselves, 255 where there is no data."""
        assert self.eroded_HW is not None, "an eroded label is read only where it is asked for"
        return _where_data(self.eroded_HW, self.guess)

    @property
    def made(self) -> Ids:
        """The label without what lies along class borders, 255 where there is no data."""
        is_border = near_other_class(self.label_HW, EROSION_RADIUS)[self.core]
        return np.where(is_border, np.uint8(NODATA_ID), self.given)


def read_strips(
    image: LabelledImage,
    mask: Path,
    data: SegmentationData,
    *,
    halo: int = 0,
    is_eroded_read: bool = False,
) -> Iterator[Strip]:
    """Yield the strips of a scene from top to bottom.

    Args:
        image: the labelled image.
        mask: its predicted mask.
        data: the data set, for the encoding of labels.
        halo: rows above and below that are wanted.
        is_eroded_read: whether the data set's eroded label is wanted.

    Raises:
        DataError: a label does not fit its image, or holds what its encoding does not know.
        RasterError: a file cannot be read.
    """
    eroded = image.eroded if is_eroded_read else None
    with Raster(image.label) as label, Raster(mask) as predicted:
        check_label(label, predicted, data.encoding)
        rows = min(ROWS_AT_ONCE, max(LEAST_ROWS, PIXELS_AT_ONCE // label.width))
        for row in range(0, label.height, rows):
            window = Window(row, 0, min(rows, label.height - row), label.width)
            first, end = max(0, row - halo), min(label.height, row + window.height + halo)
            around = Window(first, 0, end - first, label.width)
            yield Strip(
                window=window,
                core=slice(row - first, row - first + window.height),
                label_HW=read_label(label, data.encoding, around),
                guess_HW=predicted.read(around)[0],
                eroded_HW=None if eroded is None else _read_eroded(eroded, predicted, data, window),
            )


def make_block(image: LabelledImage, strip: Strip, confidence: Path | None) -> Block:
    """Return what an observer is shown of a strip."""
    shape = (strip.window.height, strip.window.width)
    steps = np.full(shape, NODATA_ID, dtype=np.uint8)
    if confidence is not None:
        with Raster(confidence) as raster:
            steps = raster.read(strip.window)[0]
    shares = steps.astype(np.float32) / np.float32(FULL_SCORE)
    return Block(
        image=image,
        window=strip.window,
        truth_HW=strip.given,
        guess_HW=strip.guess,
        confidence_HW=np.where(steps == NODATA_ID, np.float32(np.nan), shares),
    )


def _read_eroded(path: Path, image: Raster, data: SegmentationData, window: Window) -> Ids:
    with Raster(path) as label:
        check_label(label, image, data.encoding)
        return read_label(label, data.encoding, window)


def _where_data(label_HW: Ids, guess_HW: Ids) -> Ids:
    return np.where(guess_HW == NODATA_ID, np.uint8(NODATA_ID), label_HW)
