"""What is known of a data set before anybody looks at a disk: its classes, splits and layouts."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from cvmh.classes import ClassTable
from cvmh.datasets.labelled import LabelEncoding

RGB = ("red", "green", "blue")
IRRG = ("nir", "red", "green")
RGBIR = (*RGB, "nir")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a data set lie in a folder.

    A pattern is a path below the root with placeholders: ``{tile}`` is the part of a name that
    says which image of the published data set it is, ``{split}`` a folder of :attr:`folders`, and
    any other name stands for text that is the same in image and label. Of several label patterns
    the first whose file exists counts.
    """

    name: str
    image: str
    encoding: LabelEncoding
    label: tuple[str, ...] = ()
    eroded: tuple[str, ...] = ()
    # What an image of the published set is called, from the placeholders.
    scene: str = "{tile}"
    # Regular expressions of placeholders that are not any text without a slash.
    fields: Mapping[str, str] = field(default_factory=dict)
    # Names of folders that stand for {split}, and the split that each is.
    folders: Mapping[str, str] = field(default_factory=dict)
    # Text files that list the scenes of a split, by split.
    lists: Mapping[str, str] = field(default_factory=dict)
    # The split tables that fit; the first is the default.
    splits: tuple[str, ...] = ("official",)
    band_names: tuple[str, ...] = RGB
    # True if the images are cut from the published ones.
    tiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Splits:
    """One way to divide a data set.

    Which images are in a split is said by :attr:`tiles`; without it by the folders or list files
    of the layout. :attr:`held_out` then moves about one in ``n`` images of a split to another one,
    by a checksum of the name, so that it does not depend on which other images are there.
    """

    about: str
    tiles: Mapping[str, tuple[str, ...]] | None = None
    # How many images of the published set each split has, where it is known.
    counts: Mapping[str, int] = field(default_factory=dict)
    # How many labelled images there are in all, where only that is known.
    total: int | None = None
    # {"val": ("train", 10)}: val is one in ten images of train.
    held_out: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    # Splits that are published without labels, and why.
    unlabelled: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> dict[str, int]:
        """How many images of the published set each split has."""
        if self.tiles is None:
            return dict(self.counts)
        return {split: len(tiles) for split, tiles in self.tiles.items()}

    @cached_property
    def _by_tile(self) -> dict[str, str]:
        pairs = (self.tiles or {}).items()
        return {tile: split for split, tiles in pairs for tile in tiles}

    def split_of(self, scene: str, given: str | None) -> str | None:
        """Return the split of an image, None if it is in none.

        Args:
            scene: the image's name in the published set.
            given: the split that its folder or a list file names.
        """
        if self.tiles is not None:
            given = self._by_tile.get(plain(scene))
        for position, (held, (source, one_in)) in enumerate(self.held_out.items()):
            if given == source and _draw(scene) % one_in == position:
                return held
        return given


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A published data set.

    ``get`` says in words where it is to be had, ``size`` how much of it there is, ``hint`` what to
    know when parts are missing.
    """

    name: str
    title: str
    classes: ClassTable
    size: str
    resolution: str
    licence: str
    citation: str
    get: str
    layouts: tuple[Layout, ...]
    splits: Mapping[str, Splits]
    gsd: float | None = None
    hint: str = ""

    def layout(self, name: str) -> Layout:
        """Return a layout by its name."""
        return next(layout for layout in self.layouts if layout.name == name)

    def is_one_table(self, first: str, second: str) -> bool:
        """Return whether two split tables are one under two names, as Potsdam's official, mmseg."""
        alike = [replace(self.splits[n], about="") for n in (first, second) if n in self.splits]
        return first == second or (len(alike) == 2 and alike[0] == alike[1])


def plain(scene: str) -> str:
    """Return a name with its numbers without leading zeros: 06_07 is tile 6_7."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", scene)


def _draw(scene: str) -> int:
    """Return a number that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(plain(scene).encode()).digest()[:8], "big")
