"""Looking at a folder: which layout a data set lies in there, and what is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cvmh.datasets.known.patterns import Folders, matches
from cvmh.datasets.known.sets import KnownSet, Layout, Splits, plain
from cvmh.datasets.labelled import LabelledImage

# The folder that the user names may hold the right one, or lie in it.
BELOW = 40


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Parts of a data set that are not there: ``names`` of images whose ``part`` is missing.

    Where a split is known only by its number of images, ``names`` is empty and ``count`` says
    how many there are too few.
    """

    split: str
    part: str
    count: int
    expected: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A data set as it lies on a disk."""

    known: KnownSet
    layout: Layout
    splits: str
    base: Path
    images: tuple[LabelledImage, ...]
    # Files that look like images of the set, images of the published set with a label.
    num_files: int
    num_scenes: int
    missing: tuple[Missing, ...] = ()
    # Splits whose images are there, or could be, but never have labels.
    unlabelled: Mapping[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of what is expected is there, from 0 to 1."""
        expected = self.num_scenes + sum(entry.count for entry in self.missing)
        return self.num_scenes / expected if expected else 0.0


def survey(
    known: KnownSet, root: Path, *, layout: str | None = None, splits: str | None = None
) -> Survey | None:
    """Find a data set in a folder, in one below it, or in the one above; no pixel is read.

    Of several layouts the complete one counts, else the one of which most is there.

    Args:
        known: the data set.
        root: where to look.
        layout: the only layout to look for; default all.
        splits: the split table to follow; default the one that goes with the layout.

    Returns:
        What was found, or None if no image of the data set is there.
    """
    wanted = [entry for entry in known.layouts if layout in (None, entry.name)]
    for bases in _places(root):
        found = [
            _survey(known, base, entry, splits or entry.splits[0])
            for base in bases
            for entry in wanted
            if splits is None or splits in entry.splits
        ]
        seen = [entry for entry in found if entry.num_files]
        if seen:
            return max(seen, key=lambda entry: entry.share)
    return None


def _places(root: Path) -> Iterator[list[Path]]:
    yield [root]
    folders = sorted(path for path in root.iterdir() if path.is_dir())[:BELOW]
    yield folders
    yield [root.resolve().parent]


def _survey(known: KnownSet, base: Path, layout: Layout, table: str) -> Survey:
    splits, folders = known.splits[table], Folders()
    listed = _listed(base, layout)
    images: list[LabelledImage] = []
    without: dict[str, list[str]] = {}
    scenes: dict[str, set[str]] = {}
    num_files = 0
    for path, fields in matches(base, layout):
        scene = layout.scene.format(**fields)
        split = splits.split_of(scene, _given(layout, fields, listed.get(plain(scene))))
        num_files += 1
        if split is None:
            continue
        full = folders.first(base, layout.label, fields)
        eroded = folders.first(base, layout.eroded, fields)
        label = full or eroded
        if label is None:
            without.setdefault(split, []).append(scene)
            continue
        stem = _stem(path, scene, tiled=layout.tiled)
        images.append(LabelledImage(stem=stem, image=path, label=label, split=split, eroded=eroded))
        scenes.setdefault(split, set()).add(plain(scene))
    unlabelled = {split: why for split, why in splits.unlabelled.items() if split not in scenes}
    return Survey(
        known=known,
        layout=layout,
        splits=table,
        base=base,
        images=tuple(images),
        num_files=num_files,
        num_scenes=sum(map(len, scenes.values())),
        missing=(*_lists(base, layout), *_missing(splits, listed, scenes, without, unlabelled)),
        unlabelled=unlabelled,
    )


def _missing(
    splits: Splits,
    listed: Mapping[str, str],
    scenes: Mapping[str, set[str]],
    without: Mapping[str, list[str]],
    unlabelled: Mapping[str, str],
) -> Iterator[Missing]:
    named = _named(splits, listed)
    for split in dict.fromkeys([*splits.expected, *named, *scenes, *without]):
        if split in unlabelled:
            continue
        here, bare = scenes.get(split, set()), without.get(split, [])
        names = named.get(split)
        expected = len(names) if names else splits.expected.get(split, len(here) + len(bare))
        if bare:
            yield Missing(
                split=split, part="label", count=len(bare), expected=expected, names=tuple(bare)
            )
        known_bare = {plain(scene) for scene in bare}
        if names:
            absent = tuple(name for name in names if plain(name) not in here | known_bare)
            if absent:
                yield Missing(
                    split=split, part="image", count=len(absent), expected=expected, names=absent
                )
        elif (too_few := expected - len(here | known_bare)) > 0:
            yield Missing(split=split, part="image", count=too_few, expected=expected)


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


def _given(layout: Layout, fields: Mapping[str, str], listed: str | None) -> str | None:
    """Return the split that the disk names for an image; train where it names none at all."""
    if layout.folders:
        return layout.folders[fields["split"]]
    return listed if layout.lists else "train"


def _lists(base: Path, layout: Layout) -> Iterator[Missing]:
    for split, file in layout.lists.items():
        if not (base / file).is_file():
            yield Missing(split=split, part="list", count=1, expected=1, names=(file,))


def _listed(base: Path, layout: Layout) -> dict[str, str]:
    """Return the split of each image that a list file names."""
    listed: dict[str, str] = {}
    for split, file in layout.lists.items():
        path = base / file
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    listed[plain(Path(line.strip()).name.removesuffix(".tif"))] = split
    return listed


def _stem(path: Path, scene: str, *, tiled: bool) -> str:
    """Return a name that no other image of the set has: its scene, or the name of the tile."""
    return path.stem if tiled else scene
