"""The pieces of a data set that a split is made of: its images, or blocks of large scenes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.reading import read_label
from cvmh.geo.footprint import boxes_in_metres
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.geo.tiling import Window

ROWS_AT_ONCE = 512
# Without a georeference, images lie so many pixels apart: their neighbours are not known.
FAR = 1e9


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """An image, or a block of one.

    ``box`` is left, bottom, right, top in the unit of the plan, y growing upwards; ``window`` is
    None for a whole image; ``class_pixels`` counts its labels; ``unit`` is the side of a pixel.
    """

    facts: ImageFacts
    box: NDArray[np.float64]
    unit: float
    class_pixels: NDArray[np.int64]
    window: Window | None = None

    @property
    def stem(self) -> str:
        """The name of the piece in split.csv."""
        if self.window is None:
            return self.facts.entry.stem
        return f"{self.facts.entry.stem}_r{self.window.row:05d}_c{self.window.column:05d}"


def list_pieces(examination: Examination) -> tuple[list[Piece], bool]:
    """Return the images of a set as pieces, and whether their boxes are metres on the ground."""
    images = examination.images
    footprints = [f.image.footprint for f in images if f.image and f.image.footprint]
    in_metres = len(footprints) == len(images)
    if in_metres:
        boxes = boxes_in_metres(footprints)
    else:
        sizes = [(f.image.height, f.image.width) for f in images if f.image]
        boxes = np.array([[n * FAR, -h, n * FAR + w, 0] for n, (h, w) in enumerate(sizes)])
    pieces = []
    for facts, box in zip(images, boxes, strict=True):
        assert facts.image is not None and facts.labels is not None
        unit = float((box[2] - box[0]) / facts.image.width)
        counted = facts.labels.class_pixels
        pieces.append(Piece(facts=facts, box=box, unit=unit, class_pixels=counted))
    return pieces, in_metres


def cut(piece: Piece, side: float, examination: Examination) -> Iterator[Piece]:
    """Yield the blocks of an image, about ``side`` wide and high; a small one stays whole.

    Raises:
        DataError: the label holds a value that its encoding does not know.
    """
    image = piece.facts.image
    assert image is not None
    pixels = side / piece.unit
    rows, columns = _edges(image.height, pixels), _edges(image.width, pixels)
    if len(rows) == len(columns) == 2:
        yield piece
        return
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            window = Window(top, left, bottom - top, right - left)
            yield narrowed(piece, window, examination)


def narrowed(piece: Piece, window: Window, examination: Examination) -> Piece:
    """Return the part of an image that a window shows."""
    image = piece.facts.image
    assert image is not None
    whole = piece.box if piece.window is None else _whole_box(piece)
    across = (whole[2] - whole[0]) / image.width
    along = (whole[3] - whole[1]) / image.height
    box = np.array(
        [
            whole[0] + window.column * across,
            whole[3] - (window.row + window.height) * along,
            whole[0] + (window.column + window.width) * across,
            whole[3] - window.row * along,
        ]
    )
    counted = _count_classes(piece.facts, window, examination)
    return replace(piece, window=window, box=box, class_pixels=counted)


def _whole_box(piece: Piece) -> NDArray[np.float64]:
    image, window = piece.facts.image, piece.window
    assert image is not None and window is not None
    across = (piece.box[2] - piece.box[0]) / window.width
    along = (piece.box[3] - piece.box[1]) / window.height
    left, top = piece.box[0] - window.column * across, piece.box[3] + window.row * along
    return np.array([left, top - image.height * along, left + image.width * across, top])


def _edges(size: int, side: float) -> list[int]:
    """Return the ends of blocks of about equal size along one side."""
    number = max(1, round(size / side))
    return [round(size * part / number) for part in range(number + 1)]


def _count_classes(
    facts: ImageFacts, window: Window, examination: Examination
) -> NDArray[np.int64]:
    counts = np.zeros(NODATA_ID + 1, dtype=np.int64)
    with bounded_cache(), Raster(facts.entry.label) as label:
        end = window.row + window.height
        for row in range(window.row, end, ROWS_AT_ONCE):
            part = Window(row, window.column, min(ROWS_AT_ONCE, end - row), window.width)
            ids = read_label(label, examination.data.encoding, part)
            counts += np.bincount(ids.ravel(), minlength=NODATA_ID + 1)
    return counts[: len(examination.classes)]
