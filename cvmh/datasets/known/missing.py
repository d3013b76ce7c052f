"""What of a data set is not on the disk."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cvmh.datasets.known.sets import Layout, Splits, plain


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Parts of a data set that are not there: ``names`` of images whose ``part`` is missing.

    ``part`` is "image", "label", or "list" for a file that lists images. Where only the number of
    images is known, ``names`` is empty and ``count`` says how many there are too few; ``split`` is
    empty where that is known of all together.
    """

    split: str
    part: str
    count: int
    expected: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """Names of images of the published set on a disk, by split, as :func:`plain` writes them."""

    labelled: dict[str, set[str]]
    bare: dict[str, list[str]]

    def of(self, split: str) -> set[str]:
        """Return those of a split, with a label or without."""
        return {*self.labelled.get(split, ()), *map(plain, self.bare.get(split, ()))}

    @property
    def num_labelled(self) -> int:
        """How many have a label."""
        return sum(map(len, self.labelled.values()))


def read_lists(base: Path, layout: Layout) -> dict[str, str]:
    """Return the split of each image that a list file of the layout names."""
    listed: dict[str, str] = {}
    for split, file in layout.lists.items():
        path = base / file
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip():
                    listed[plain(Path(line.strip()).name.removesuffix(".tif"))] = split
    return listed


def missing_lists(base: Path, layout: Layout) -> Iterator[Missing]:
    """Yield the list files of the layout that are not there."""
    for split, file in layout.lists.items():
        if not (base / file).is_file():
            yield Missing(split=split, part="list", count=1, expected=1, names=(file,))


def missing_files(splits: Splits, listed: Mapping[str, str], found: Found) -> Iterator[Missing]:
    """Yield images and labels that a split table expects, or a list names, and that are not there.

    Splits that are published without labels may lack anything.
    """
    named = _named(splits, listed)
    for split in dict.fromkeys([*splits.expected, *named, *found.labelled, *found.bare]):
        if split not in splits.unlabelled or split in found.labelled:
            yield from _of_split(split, splits, named.get(split), found)
    here = sum(len(found.of(split)) for split in {*found.labelled, *found.bare})
    if splits.total is not None and here < splits.total:
        few = splits.total - here
        yield Missing(split="", part="image", count=few, expected=splits.total)


def _of_split(
    split: str, splits: Splits, names: list[str] | None, found: Found
) -> Iterator[Missing]:
    here, bare = found.of(split), found.bare.get(split, [])
    expected = len(names) if names else splits.expected.get(split, len(here))
    if bare:
        yield Missing(
            split=split, part="label", count=len(bare), expected=expected, names=tuple(bare)
        )
    absent = tuple(name for name in names or () if plain(name) not in here)
    if few := len(absent) if names else max(0, expected - len(here)):
        yield Missing(split=split, part="image", count=few, expected=expected, names=absent)


def _named(splits: Splits, listed: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the images of each split, where they are known."""
    if splits.tiles is not None:
        return {split: list(tiles) for split, tiles in splits.tiles.items()}
    names: dict[str, list[str]] = {}
    for scene, given in listed.items():
        split = splits.split_of(scene, given)
        if split is not None:
            names.setdefault(split, []).append(scene)
    return names
