"""Images that occur twice, and pixels that two splits share."""

from collections import defaultdict
from collections.abc import Iterator

from cvmh.datasets.doctor.anchors import Common, find_common, join
from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import Finding, Place, counted, places_of
from cvmh.datasets.doctor.thumb import find_alike

Pair = tuple[int, int]


def find_duplicates(examination: Examination) -> Iterator[Finding]:
    """Name images with the same content: identical, turned, or stored in another format."""
    for (one, other), how in sorted(find_pairs(examination).items()):
        first, second = (examination.images[number] for number in (one, other))
        leaks = first.entry.split != second.entry.split
        where = (
            f"in splits '{first.entry.split}' and '{second.entry.split}'"
            if leaks
            else f"both in split '{first.entry.split}'"
        )
        yield Finding(
            code="leaking-duplicate" if leaks else "duplicate",
            severity="error" if leaks else "warning",
            what=f"{first.entry.image.name} and {second.entry.image.name} {how}, {where}",
            fix="take one of the two out of the set",
            places=places_of([first.entry.image, second.entry.image]),
        )


def find_shared_pixels(examination: Examination) -> Iterator[Finding]:
    """Tell which images of different splits show the same pixels, at whatever offset."""
    images = [facts for facts in examination.images if facts.anchors is not None and facts.image]
    splits = {facts.entry.split: number for number, facts in enumerate(images)}
    same = find_pairs(examination)
    numbers = {id(facts): number for number, facts in enumerate(examination.images)}
    found = [
        common
        for common in find_common(
            [facts.anchors or join([]) for facts in images],
            [(f.image.height, f.image.width) for f in images if f.image],
            [splits[facts.entry.split] for facts in images],
        )
        if _pair(numbers, images[common.first], images[common.second]) not in same
    ]
    grouped: dict[tuple[str, ...], list[Common]] = defaultdict(list)
    for common in found:
        pair = {images[common.first].entry.split, images[common.second].entry.split}
        grouped[tuple(sorted(pair))].append(common)
    for names, commons in sorted(grouped.items()):
        yield _shared(names, commons, images)


def _shared(names: tuple[str, ...], commons: list[Common], images: list[ImageFacts]) -> Finding:
    commons.sort(key=lambda common: -common.in_first.height * common.in_first.width)
    largest = commons[0]
    first, second = images[largest.first].entry, images[largest.second].entry
    pixels = sum(common.in_first.height * common.in_first.width for common in commons)
    window = largest.in_first
    return Finding(
        code="shared-pixels",
        severity="error",
        what=(
            f"splits '{names[0]}' and '{names[1]}' share {pixels:,} pixels in "
            f"{counted(len(commons), 'pair')} of images; most in {first.image.name} and "
            f"{second.image.name}, {window.height} x {window.width}"
        ),
        fix="split by area, not by tile: 'cvmh data split' writes such a split.csv",
        places=tuple(
            Place(file=images[number].entry.image, row=shown.row, column=shown.column)
            for common in commons
            for number, shown in (
                (common.first, common.in_first),
                (common.second, common.in_second),
            )
        ),
        counts={
            "pairs": len(commons),
            "pixels": pixels,
            "rows": window.height,
            "columns": window.width,
        },
    )


def find_pairs(examination: Examination) -> dict[Pair, str]:
    """Return the pairs of images with the same content, and how they are alike."""
    pairs: dict[Pair, str] = {}
    first_of: dict[str, int] = {}
    for number, facts in enumerate(examination.images):
        if facts.digest is None or facts.bands is None or not facts.bands.count.any():
            continue
        if facts.digest in first_of:
            pairs[first_of[facts.digest], number] = "are the same pixel by pixel"
        first_of.setdefault(facts.digest, number)
    for one, other, turn in find_alike([facts.thumb for facts in examination.images]):
        if examination.images[one].digest != examination.images[other].digest:
            how = "turned or mirrored" if turn else "resampled or compressed otherwise"
            pairs.setdefault((one, other), f"show the same picture, {how}")
    return pairs


def _pair(numbers: dict[int, int], one: ImageFacts, other: ImageFacts) -> Pair:
    first, second = sorted((numbers[id(one)], numbers[id(other)]))
    return first, second
