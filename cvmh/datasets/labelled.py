"""Labelled images, and how the values of their labels stand for classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.errors import DataError

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """How the values of a label raster stand for class ids; 255 is what does not count.

    ``values`` maps the values of a single band, ``colours`` those of a picture (red, green, blue);
    with neither, a value is a class id and 255 is ignored. What a table does not name is an error
    when a label is read, never a class.
    """

    num_classes: int
    values: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None

    @property
    def num_bands(self) -> int:
        """The number of bands of a label that is written so."""
        return 1 if self.colours is None else 3

    @property
    def known(self) -> str:
        """What a label may hold, for messages."""
        if self.colours is not None:
            return f"the colours {', '.join(map(str, self.colours))}"
        if self.values is not None:
            return f"the values {', '.join(map(str, self.values))}"
        return f"ids 0..{self.num_classes - 1}, and 255 is ignored"

    def decode(
        self, pixels_CHW: NDArray[np.generic]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return class ids (H, W), 255 where ignored, and where a value is not known (H, W).

        Args:
            pixels_CHW: (1, H, W) of any number type, or (3 or 4, H, W) uint8 for colours.
        """
        codes, ids = self._table
        pixels = _packed(pixels_CHW) if self.colours is not None else pixels_CHW[0]
        place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
        unknown = codes[place] != pixels
        return np.where(unknown, np.uint8(NODATA_ID), ids[place]), unknown

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        if self.colours is not None:
            table = {(r << 16) | (g << 8) | b: i for (r, g, b), i in self.colours.items()}
        elif self.values is not None:
            table = dict(self.values)
        else:
            table = {**{i: i for i in range(self.num_classes)}, NODATA_ID: NODATA_ID}
        codes = np.array(sorted(table), dtype=np.int64)
        return codes, np.array([table[code] for code in codes.tolist()], dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image, its label raster, and the split that it belongs to.

    ``eroded`` is the same label with the pixels along class borders ignored, where the data set
    comes with one; some protocols score on it.
    """

    stem: str
    image: Path
    label: Path
    split: str
    eroded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """Labelled images with one class table.

    ``label_set`` says what the labels of the images are: "full", or "eroded" where the data set on
    disk has only those. ``layout`` and ``splits`` name how the files lie and which published
    split is followed. ``band_names`` are declared where the files name none.
    """

    name: str
    root: Path
    classes: ClassTable
    images: tuple[LabelledImage, ...]
    encoding: LabelEncoding = field(default=None)  # type: ignore[assignment]
    label_set: str = "full"
    layout: str = "folder"
    splits: str = "own"
    band_names: tuple[str, ...] | None = None
    gsd: float | None = None

    def __post_init__(self) -> None:
        """Take class ids as the values of the labels where nothing else is said."""
        if self.encoding is None:
            object.__setattr__(self, "encoding", LabelEncoding(num_classes=len(self.classes)))

    def of_split(self, *splits: str) -> tuple[LabelledImage, ...]:
        """Return the images of one or several splits.

        Raises:
            DataError: a split has none; the message names the splits that there are.
        """
        for split in splits:
            if not any(image.split == split for image in self.images):
                found = ", ".join(sorted({image.split for image in self.images}))
                raise DataError(f"{self.root}: no image is in split '{split}'; there are: {found}")
        return tuple(image for image in self.images if image.split in splits)


def _packed(pixels_CHW: NDArray[np.generic]) -> NDArray[np.int64]:
    red, green, blue = pixels_CHW[:3].astype(np.int64)
    return (red << 16) | (green << 8) | blue
