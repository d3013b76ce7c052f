"""Labelled images, and how the values of their labels stand for classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.errors import DataError

Colour = tuple[int, int, int]
# The bits of a value, for dtypes and numbers of bands where a table of all values is quickest.
LOOKED_UP = {("uint8", 1): 8, ("uint16", 1): 16, ("uint8", 3): 24}
# From here on a part of a colour counts as 255 where colours are rounded.
HALF = 128


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """How the values of a label raster stand for class ids; 255 is what does not count.

    ``values`` maps the values of a single band, ``colours`` those of a picture (red, green, blue);
    with neither, a value is a class id and 255 is ignored. What a table does not name is an error
    when a label is read, never a class. With ``rounded`` each part of a colour counts as 0 or 255,
    whichever is nearer: for labels of pure colours that went through lossy compression.
    """

    num_classes: int
    values: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    rounded: bool = False
    # The values may also stand in a picture of three equal bands.
    grey_picture: bool = False

    @property
    def num_bands(self) -> int:
        """The number of bands of a label that are read."""
        return 1 if self.colours is None else 3

    @property
    def band_counts(self) -> tuple[int, ...]:
        """How many bands a label may have."""
        if self.colours is not None:
            return 3, 4
        return (1, 3) if self.grey_picture else (1,)

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
        pixels = pixels_CHW[0] if self.colours is None else self._packed(pixels_CHW)
        bits = LOOKED_UP.get((pixels_CHW.dtype.name, self.num_bands))
        if bits is not None:
            found = _lookup(bits, tuple(codes.tolist()), tuple(ids.tolist()))[pixels]
            # Where nothing is known, 0 - 1 becomes 255.
            return (found - np.uint16(1)).astype(np.uint8), found == 0
        place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
        unknown = codes[place] != pixels
        return np.where(unknown, np.uint8(NODATA_ID), ids[place]), unknown

    def _packed(self, pixels_CHW: NDArray[np.generic]) -> NDArray[np.int64]:
        colours = pixels_CHW[:3].astype(np.int64)
        if self.rounded:
            colours = np.where(colours >= HALF, 255, 0)
        return (colours[0] << 16) | (colours[1] << 8) | colours[2]

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
    comes with one; some protocols score on it. Where that is the only one, ``label`` is it too.
    """

    stem: str
    image: Path
    label: Path
    split: str
    eroded: Path | None = None

    @property
    def has_full_label(self) -> bool:
        """True if ``label`` is not an eroded one."""
        return self.label != self.eroded


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """Labelled images with one class table.

    ``label_set`` says what the labels of the images are: "full", or "eroded" where the data set on
    disk has only those (each image tells by ``has_full_label``). ``layout`` and ``splits`` name
    how the files lie and which published split is followed. ``band_names`` are declared where the
    files name none or wrong ones. ``unlabelled`` says why some splits have no labels.
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
    unlabelled: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take class ids as the values of the labels where nothing else is said."""
        if self.encoding is None:
            object.__setattr__(self, "encoding", LabelEncoding(num_classes=len(self.classes)))

    def of_split(self, *splits: str | Sequence[str]) -> tuple[LabelledImage, ...]:
        """Return the images of one or several splits.

        Raises:
            DataError: a split has none; the message names the splits that there are.
        """
        wanted = [
            name for split in splits for name in ([split] if isinstance(split, str) else split)
        ]
        for split in wanted:
            if not any(image.split == split for image in self.images):
                if split in self.unlabelled:
                    raise DataError(
                        f"split '{split}' of {self.name} has no labels ({self.unlabelled[split]}); "
                        "take another split, or look at its masks with 'cvmh predict'"
                    )
                found = ", ".join(sorted({image.split for image in self.images}))
                raise DataError(f"{self.root}: no image is in split '{split}'; there are: {found}")
        return tuple(image for image in self.images if image.split in wanted)

    def bands_named(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Return the numbers (1-based) of bands by the declared names, None if none are declared.

        Raises:
            DataError: names are declared, but not these.
        """
        if self.band_names is None:
            return None
        if missing := [name for name in names if name not in self.band_names]:
            raise DataError(
                f"data set {self.name} in layout {self.layout} must have the bands "
                f"{', '.join(names)}, but has {', '.join(self.band_names)}, not "
                f"{', '.join(missing)}"
            )
        return tuple(self.band_names.index(name) + 1 for name in names)


@lru_cache(maxsize=8)
def _lookup(bits: int, codes: tuple[int, ...], ids: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return a table from value to id + 1, 0 where a value is not known.

    Of the table of all colours only the pages that are looked at take memory.
    """
    table = np.zeros(1 << bits, dtype=np.uint16)
    for code, class_id in zip(codes, ids, strict=True):
        if 0 <= code < len(table):
            table[code] = class_id + 1
    return table
