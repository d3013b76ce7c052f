"""Planning a split by area: pieces, groups of them that stay together, and a split for each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.blocks.balance import assign
from cvmh.datasets.blocks.groups import alike_pairs, connect, grid_pairs, near_pairs
from cvmh.datasets.blocks.pieces import Piece, cut, list_pieces, narrowed
from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.structure import UNUSED
from cvmh.errors import ConfigError, DataError
from cvmh.geo.tiling import Window

# Blocks of one scene keep at least a tile between splits, if nothing else is said.
TILE = 256
# A block between others loses the gap on both sides, and must still be larger than it.
LEAST_GAPS = 4
# An image this much larger than a block is cut.
CUT_FROM = 1.5


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """Which split each piece of a data set goes to.

    ``splits`` has one name a piece, :data:`UNUSED` for those that lie between splits; ``gap`` is
    how far splits are apart, in metres if ``in_metres``, else in pixels.
    """

    pieces: tuple[Piece, ...]
    splits: tuple[str, ...]
    num_groups: int
    gap: float
    in_metres: bool
    class_names: tuple[str, ...]

    @property
    def is_cut(self) -> bool:
        """True if a scene is cut into blocks."""
        return any(piece.window is not None for piece in self.pieces)

    def class_pixels(self, split: str) -> NDArray[np.int64]:
        """Return the labelled pixels of each class in a split."""
        counts = np.zeros(len(self.class_names), dtype=np.int64)
        for piece, name in zip(self.pieces, self.splits, strict=True):
            if name == split:
                counts += piece.class_pixels
        return counts


def plan_split(
    examination: Examination,
    *,
    val: float = 0.2,
    test: float = 0.0,
    block: float | None = None,
    gap: float | None = None,
    seed: int = 0,
) -> SplitPlan:
    """Split a data set by area, so that no split shows ground that another one holds.

    Images that touch, overlap, are copies, share pixels, or are less than ``gap`` apart go to one
    split. With ``block``, they are gathered into blocks of that size instead, and scenes that are
    larger are cut into such blocks; what would lie nearer than ``gap`` to another split is used by
    none. Classes are balanced over the splits as well as that allows.

    Args:
        examination: what a survey of the data set found.
        val: the share of the labelled pixels to validate on.
        test: the share to test on.
        block: the side of a block, in metres, or in pixels without a georeference.
        gap: how far splits are apart at least, in the same unit; default nothing, and
            :data:`TILE` pixels between the blocks of a scene.
        seed: the same one gives the same split.

    Raises:
        ConfigError: shares or lengths are out of range.
        DataError: files are damaged, labels are not as declared, or there are too few groups.
    """
    shares = _shares(val, test)
    _check_readable(examination)
    images, in_metres = list_pieces(examination)
    is_scenes = block is not None and any(_is_large(piece, block) for piece in images)
    if gap is None:
        gap = TILE * float(np.median([piece.unit for piece in images])) if is_scenes else 0.0
    _check_lengths(block, gap, is_scenes=is_scenes)
    pieces = images
    if block is not None and is_scenes:
        pieces = [part for piece in images for part in cut(piece, block, examination)]
    groups = _group(pieces, images, examination, block=block, gap=gap, is_scenes=is_scenes)
    number = int(groups.max()) + 1
    if number < len(shares):
        raise DataError(_too_few(number, len(shares), block=block, in_metres=in_metres))
    amounts = np.zeros((number, len(examination.classes)), dtype=np.int64)
    np.add.at(amounts, groups, np.array([piece.class_pixels for piece in pieces]))
    chosen = assign(amounts, list(shares.values()), seed=seed)[groups]
    names = [list(shares)[split] for split in chosen.tolist()]
    if is_scenes:
        pieces = _kept_apart(pieces, names, gap, examination)
    if block is not None:
        names = _without_neighbours(pieces, names, gap)
    plan = SplitPlan(
        pieces=tuple(pieces),
        splits=tuple(names),
        num_groups=number,
        gap=gap,
        in_metres=in_metres,
        class_names=tuple(examination.classes.names),
    )
    for split in shares:
        if not plan.class_pixels(split).any():
            raise DataError(
                f"split '{split}' would have no labelled pixel, for too little lies farther than "
                f"{gap:g} from the others; take a smaller --gap, another --block or another share"
            )
    return plan


def _shares(val: float, test: float) -> dict[str, float]:
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(
            "the shares of val and test must be above 0 and sum to less than 1 (test may be 0), "
            f"got val {val:g} and test {test:g}"
        )
    shares = {"train": 1 - val - test, "val": val, "test": test}
    return {split: share for split, share in shares.items() if share > 0}


def _check_lengths(block: float | None, gap: float, *, is_scenes: bool) -> None:
    if gap < 0 or (block is not None and block <= 0):
        raise ConfigError(f"block and gap must not be negative, got {block or 0:g} and {gap:g}")
    if block is not None and is_scenes and block < LEAST_GAPS * gap:
        raise ConfigError(
            f"blocks of scenes must be at least {LEAST_GAPS} times as large as the gap between "
            f"splits, {gap:g}, got {block:g}; take larger blocks or a smaller gap"
        )


def _check_readable(examination: Examination) -> None:
    for facts in examination.images:
        if facts.faults:
            raise DataError(
                f"{facts.faults[0][1]}; 'cvmh data doctor' lists everything that is wrong"
            )
        if facts.image is None or facts.labels is None or facts.labels.num_unknown:
            raise DataError(
                f"label {facts.entry.label} is not in the classes and bands of its data set; "
                "'cvmh data doctor' says what is wrong with it"
            )


def _is_large(piece: Piece, block: float) -> bool:
    return bool(max(piece.box[2] - piece.box[0], piece.box[3] - piece.box[1]) > CUT_FROM * block)


def _group(
    pieces: list[Piece],
    images: list[Piece],
    examination: Examination,
    *,
    block: float | None,
    gap: float,
    is_scenes: bool,
) -> NDArray[np.int64]:
    """Return the group of each piece."""
    alike = alike_pairs(examination)
    if is_scenes:
        # Where scenes overlap on the ground, one of two blocks is left out below.
        copies = sorted(alike - set(near_pairs(images, 0)))
        if copies:
            one, other = copies[0]
            raise DataError(
                f"{examination.images[one].entry.image.name} and "
                f"{examination.images[other].entry.image.name} share pixels; take one of them out "
                "of the set before scenes are cut into blocks"
            )
        return np.arange(len(pieces))
    near = near_pairs(pieces, gap) if block is None else grid_pairs(pieces, block)
    return connect(len(pieces), [*near, *sorted(alike)])


def _kept_apart(
    pieces: list[Piece], names: list[str], gap: float, examination: Examination
) -> list[Piece]:
    """Return the pieces, those that are not trained on narrowed where another split is near."""
    near: dict[int, list[int]] = {}
    for one, other in near_pairs(pieces, gap):
        if pieces[one].facts is pieces[other].facts and names[one] != names[other]:
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    narrow = []
    for number, piece in enumerate(pieces):
        if names[number] == "train" or number not in near or piece.window is None:
            narrow.append(piece)
            continue
        others = [w for n in near[number] if (w := pieces[n].window) is not None]
        narrow.append(_narrow(piece, piece.window, others, gap, examination))
    return narrow


def _narrow(
    piece: Piece, window: Window, others: list[Window], gap: float, examination: Examination
) -> Piece:
    pixels = int(np.ceil(gap / piece.unit))
    top, left = window.row, window.column
    bottom, right = top + window.height, left + window.width
    above = any(other.row + other.height <= top for other in others)
    below = any(other.row >= bottom for other in others)
    before = any(other.column + other.width <= left for other in others)
    after = any(other.column >= right for other in others)
    first_row, end_row = top + pixels * above, bottom - pixels * below
    first_column, end_column = left + pixels * before, right - pixels * after
    shown = Window(first_row, first_column, end_row - first_row, end_column - first_column)
    return piece if min(shown.height, shown.width) < 1 else narrowed(piece, shown, examination)


def _without_neighbours(pieces: list[Piece], names: list[str], gap: float) -> list[str]:
    """Return the splits, with :data:`UNUSED` for pieces too near to another split."""
    left = list(names)
    # Training gives way to the others, validation to the test.
    order = {"train": 0, "val": 1, "test": 2}
    for one, other in near_pairs(pieces, gap):
        if UNUSED not in (left[one], left[other]) and left[one] != left[other]:
            left[min((one, other), key=lambda number: order[names[number]])] = UNUSED
    return left


def _too_few(number: int, wanted: int, *, block: float | None, in_metres: bool) -> str:
    found = "1 group" if number == 1 else f"{number} groups"
    unit = "metres" if in_metres else "pixels"
    what = (
        f"the images form {found} that cannot be parted without a leak, "
        f"but {wanted} splits are wanted"
    )
    if block is None:
        return (
            f"{what}; give --block with the side of blocks in {unit}: they are cut out of the "
            "area, and what lies between two splits is left out"
        )
    return f"{what}; take smaller blocks than {block:g} {unit}"
