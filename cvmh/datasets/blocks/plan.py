"""Planning a split by area: pieces, groups of them that stay together, and a split for each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.blocks.balance import assign
from cvmh.datasets.blocks.groups import alike_pairs, grid_pairs, near_pairs
from cvmh.datasets.blocks.parting import keep_apart, leave_out_neighbours
from cvmh.datasets.blocks.pieces import Piece, cut, list_pieces
from cvmh.datasets.connecting import connect
from cvmh.datasets.doctor.facts import Examination
from cvmh.errors import ConfigError, DataError

# Blocks of one scene keep at least a tile between splits, if nothing else is said.
TILE = 256
# A block between others loses the gap on both sides, and must still be larger than it.
LEAST_GAPS = 4
# Shares are aimed at anew so often, until so close; so much at most is not trained on.
ROUNDS, CLOSE, MOST_ASKED = 6, 0.02, 0.9
# An image this much larger than a block is cut.
CUT_FROM = 1.5


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """Which split each piece of a data set goes to.

    ``splits`` has one name a piece, ``unused`` for those that lie between splits; ``gap`` is
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
        val: the share to validate on, of the labelled pixels that are used.
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
    plan = SplitPlan(
        pieces=tuple(pieces),
        splits=(),
        num_groups=number,
        gap=gap,
        in_metres=in_metres,
        class_names=tuple(examination.classes.names),
    )
    if block is None:
        return _checked(replace(plan, splits=_assign(plan, groups, shares, seed)), shares)
    return _checked(_part(plan, groups, shares, seed, examination), shares)


def _assign(
    plan: SplitPlan, groups: NDArray[np.int64], shares: Mapping[str, float], seed: int
) -> tuple[str, ...]:
    amounts = np.zeros((plan.num_groups, len(plan.class_names)), dtype=np.int64)
    np.add.at(amounts, groups, np.array([piece.class_pixels for piece in plan.pieces]))
    chosen = assign(amounts, list(shares.values()), seed=seed)[groups]
    return tuple(list(shares)[split] for split in chosen.tolist())


def _part(
    whole: SplitPlan,
    groups: NDArray[np.int64],
    shares: Mapping[str, float],
    seed: int,
    examination: Examination,
) -> SplitPlan:
    """Assign blocks and leave out what lies between splits, so that the shares come out right."""
    best, nearest, goal = whole, np.inf, dict(shares)
    for _ in range(ROUNDS):
        names = _assign(whole, groups, goal, seed)
        pieces = keep_apart(list(whole.pieces), names, whole.gap, examination)
        splits = leave_out_neighbours(pieces, names, whole.gap)
        plan = replace(whole, pieces=tuple(pieces), splits=tuple(splits))
        pixels = {split: int(plan.class_pixels(split).sum()) for split in shares}
        found = {split: count / max(1, sum(pixels.values())) for split, count in pixels.items()}
        away = max(abs(found[split] - share) for split, share in shares.items())
        if away + (not all(found.values())) < nearest:
            best, nearest = plan, away + (not all(found.values()))
        # What is lost between splits is asked for beforehand.
        others = {
            split: goal[split] * min(2.0, max(0.5, share / max(found[split], 1e-9)))
            for split, share in shares.items()
            if split != "train"
        }
        if away < CLOSE or sum(others.values()) > MOST_ASKED:
            break
        goal = {"train": 1 - sum(others.values()), **others}
    return best


def _checked(plan: SplitPlan, shares: Mapping[str, float]) -> SplitPlan:
    for split in shares:
        if not plan.class_pixels(split).any():
            raise DataError(
                f"split '{split}' would have no labelled pixel, for too little lies farther than "
                f"{plan.gap:g} from the others; take a smaller --gap, another --block or share"
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
    if not examination.class_pixels().any():
        raise DataError(
            f"a split needs labelled pixels, but all labels of {examination.data.root} ignore "
            "everything; 'cvmh data doctor' says what they hold"
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
