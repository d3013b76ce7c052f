"""Looking at a folder: which layout a data set lies in there, and what is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cvmh.datasets.known.missing import Found, Missing, missing_files, missing_lists, read_lists
from cvmh.datasets.known.patterns import Folders, matches
from cvmh.datasets.known.sets import KnownSet, Layout, plain
from cvmh.datasets.labelled import LabelledImage

# The folder that the user names may hold the right one; so many folders in it are looked into.
BELOW = 40


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A data set as it lies on a disk.

    ``num_files`` counts files that look like images of the set, ``num_scenes`` images of the
    published set that have a label; ``unlabelled`` says why some splits have none.
    """

    known: KnownSet
    layout: Layout
    splits: str
    base: Path
    images: tuple[LabelledImage, ...]
    num_files: int
    num_scenes: int
    missing: tuple[Missing, ...] = ()
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
    yield sorted(path for path in root.iterdir() if path.is_dir())[:BELOW]
    yield [root.resolve().parent]


def _survey(known: KnownSet, base: Path, layout: Layout, table: str) -> Survey:
    splits, folders, listed = known.splits[table], Folders(), read_lists(base, layout)
    images: list[LabelledImage] = []
    found = Found(labelled={}, bare={})
    num_files = 0
    for path, fields in matches(base, layout):
        num_files += 1
        scene = layout.scene.format(**fields)
        split = splits.split_of(scene, _given(layout, fields, listed.get(plain(scene))))
        if split is None:
            continue
        eroded = folders.first(base, layout.eroded, fields)
        label = folders.first(base, layout.label, fields) or eroded
        if label is None:
            found.bare.setdefault(split, []).append(scene)
            continue
        # A tile is called as its file is, another image as in the published set.
        stem = path.stem if layout.tiled else scene
        images.append(LabelledImage(stem=stem, image=path, label=label, split=split, eroded=eroded))
        found.labelled.setdefault(split, set()).add(plain(scene))
    return Survey(
        known=known,
        layout=layout,
        splits=table,
        base=base,
        images=tuple(images),
        num_files=num_files,
        num_scenes=found.num_labelled,
        missing=(*missing_lists(base, layout), *missing_files(splits, listed, found)),
        unlabelled={k: why for k, why in splits.unlabelled.items() if k not in found.labelled},
    )


def _given(layout: Layout, fields: Mapping[str, str], listed: str | None) -> str | None:
    """Return the split that the disk names for an image; train where it names none at all."""
    if layout.folders:
        return layout.folders[fields["split"]]
    return listed if layout.lists else "train"
