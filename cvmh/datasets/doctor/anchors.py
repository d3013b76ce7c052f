"""Finding the same ground in two images, at any offset, by the pixels themselves.

Every 8 x 8 patch of an image is hashed; those whose hash ends in zeros are kept as anchors. The
same patch gives the same hash wherever it lies, so images that were cut from one scene have
anchors in common, all at one offset.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.geo.tiling import Window

PATCH = 8
# About so many anchors are kept of a whole set, at most one in 2^6 patches.
ANCHORS = 1_000_000
FEWEST_BITS = 6
# A patch with fewer different values is a roof, a shadow or a border without data.
FEWEST_VALUES = 12
# A patch that occurs more often is a pattern, not a place.
MOST_PLACES = 8
# Chance gives no three anchors at one offset.
FEWEST_COMMON = 3
ODD = np.uint64(0x9E3779B97F4A7C15)


class Anchors(NamedTuple):
    """Hashes of some patches of an image, and the row and column of each."""

    hashes: NDArray[np.uint64]
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]


class Common(NamedTuple):
    """Pixels that two images share: numbers of the images, and the window in each."""

    first: int
    second: int
    in_first: Window
    in_second: Window


def choose_bits(num_pixels: int) -> int:
    """Return how many bits of a hash must be zero, so that a set has not too many anchors."""
    return max(FEWEST_BITS, int(np.ceil(np.log2(max(1, num_pixels / ANCHORS)))))


def find_anchors(band: NDArray[np.generic], window: Window, *, bits: int) -> Anchors:
    """Return the anchors of a window (H, W) of an image's first band."""
    height, width = band.shape
    if min(height, width) < PATCH:
        return _none()
    mixed = _hash_patches(band) * ODD
    rows, columns = np.nonzero(mixed >> np.uint64(64 - bits) == 0)
    places = rows[:, None, None], columns[:, None, None]
    steps = np.arange(PATCH)
    patches = band[places[0] + steps[:, None], places[1] + steps].reshape(-1, PATCH * PATCH)
    values = 1 + (np.diff(np.sort(patches, axis=1), axis=1) != 0).sum(axis=1)
    kept = values >= FEWEST_VALUES
    rows, columns = rows[kept], columns[kept]
    return Anchors(
        mixed[rows, columns],
        (rows + window.row).astype(np.int32),
        (columns + window.column).astype(np.int32),
    )


def join(parts: Sequence[Anchors]) -> Anchors:
    """Return the anchors of several windows of one image together."""
    return Anchors(*map(np.concatenate, zip(*(parts or [_none()]), strict=True)))


def find_common(
    anchors: Sequence[Anchors], sizes: Sequence[tuple[int, int]], groups: Sequence[int]
) -> Iterator[Common]:
    """Yield the images of different groups that show the same pixels.

    Args:
        anchors: one entry an image.
        sizes: (height, width) of each image.
        groups: a number for the split of each image; images of one group are not compared.
    """
    if not anchors:
        return
    owners = np.repeat(np.arange(len(anchors)), [len(entry.hashes) for entry in anchors])
    hashes, rows, columns = join(anchors)
    one, other = _equal_pairs(hashes)
    apart = np.asarray(groups)[owners[one]] != np.asarray(groups)[owners[other]]
    one, other = one[apart], other[apart]
    offsets = rows[one] - rows[other], columns[one] - columns[other]
    found = np.stack([owners[one], owners[other], *offsets], axis=1)
    kinds, numbers = np.unique(found, axis=0, return_counts=True)
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    for (first, second, down, right), number in zip(kinds.tolist(), numbers.tolist(), strict=True):
        if number >= FEWEST_COMMON:
            best[first, second] = max(best.get((first, second), (0, 0, 0)), (number, down, right))
    for (first, second), (_, down, right) in sorted(best.items()):
        yield _overlap(first, second, down, right, sizes)


def _equal_pairs(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of equal hashes in pairs, the first one first; patterns are left out."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    _, number, repeats = np.unique(ordered, return_inverse=True, return_counts=True)
    kept = repeats[number] <= MOST_PLACES
    order, ordered = order[kept], ordered[kept]
    pairs = [
        np.stack([order[:-step][equal], order[step:][equal]])
        for step in range(1, min(MOST_PLACES, len(order)))
        if (equal := ordered[:-step] == ordered[step:]).any()
    ]
    joined = np.concatenate([np.zeros((2, 0), dtype=np.int64), *pairs], axis=1)
    return joined[0], joined[1]


def _overlap(
    one: int, other: int, down: int, right: int, sizes: Sequence[tuple[int, int]]
) -> Common:
    (height, width), (other_height, other_width) = sizes[one], sizes[other]
    row, column = max(0, down), max(0, right)
    rows = min(height, other_height + down) - row
    columns = min(width, other_width + right) - column
    return Common(
        one,
        other,
        Window(row, column, rows, columns),
        Window(row - down, column - right, rows, columns),
    )


def _hash_patches(band: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return a hash of the patch that begins at each pixel, (H - 7, W - 7)."""
    bits = np.ascontiguousarray(band)
    if bits.dtype.kind == "f":
        bits = bits.astype(np.float32).view(np.uint32)
    hashes = bits.astype(np.uint64)
    for axis, factor in ((0, 0x100000001B3), (1, 0xC6A4A7935BD1E995)):
        power = factor
        for step in (1, 2, 4):
            first = hashes[:-step] if axis == 0 else hashes[:, :-step]
            second = hashes[step:] if axis == 0 else hashes[:, step:]
            hashes = first * np.uint64(power) + second
            power = power * power % 2**64
    # Folded, so that the leading bits depend on all values once they are multiplied again.
    return hashes ^ (hashes >> np.uint64(29))


def _none() -> Anchors:
    return Anchors(np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32))
