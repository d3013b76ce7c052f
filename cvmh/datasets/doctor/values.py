"""Label values that stand for no class: strange colours, ids counted from 1."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from cvmh.classes import NODATA_ID
from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.finding import Finding, Place, counted, places_of
from cvmh.datasets.doctor.label_pixels import NOT_A_NUMBER
from cvmh.datasets.labelled import Colour

# More values than this are told of together: the labels were blurred or compressed with loss.
MOST_VALUES = 12
# A colour belongs to a class if it is so near (of 442 at most), and the next class is farther.
NEAREST, CLEARER = 100.0, 0.7
# What reducing zero twice leaves in uint8: 0 -> 255 -> 254.
TWICE_REDUCED = 254


def find_unknown_values(examination: Examination) -> Iterator[Finding]:
    """Count the pixels of every value that no class has."""
    pixels, files, firsts = _gather(examination)
    explained = _explained(examination, set(pixels))
    left = {value: count for value, count in pixels.most_common() if value not in explained}
    if len(left) > MOST_VALUES:
        yield _too_many(examination, left, files, firsts)
        return
    for value, count in left.items():
        name = _name(value, examination)
        yield Finding(
            code="unknown-value",
            severity="error",
            what=(
                f"{name} in {counted(count, 'pixel')} of {counted(len(files[value]), 'label')} "
                "is no class"
            ),
            fix=_suggest(value, examination),
            places=(firsts[value], *places_of(files[value][1:])),
            counts={"pixels": count, "files": len(files[value]), "value": value},
        )


def find_shifted_ids(examination: Examination) -> Iterator[Finding]:
    """Tell ids that were counted from 1, and zeros that were taken away twice."""
    if examination.data.encoding.colours or examination.data.encoding.values:
        return
    pixels, files, firsts = _gather(examination)
    counts, last = examination.class_pixels(), len(examination.classes)
    places = (firsts[last], *places_of(files[last][1:])) if last in pixels else ()
    if last in pixels and not set(pixels) - {last, TWICE_REDUCED}:
        zeros = int(counts[0])
        labels = [f.entry.label for f in examination.images if f.labels is not None]
        yield Finding(
            code="off-by-one",
            severity="error",
            what=(
                f"the labels hold ids {0 if zeros else 1}..{last} where "
                f"0..{last - 1} are expected, {last} in {pixels[last]:,} pixels"
                + (f" and 0 in {zeros:,}" if zeros else " and 0 nowhere")
            ),
            fix=(
                "0 seems to mean 'not labelled': write 255 for it and subtract 1 from the others; "
                "if it is a class, add the last one to classes.json"
                if zeros
                else "subtract 1 from every id"
            ),
            places=places,
            counts={"pixels": pixels[last], "zeros": zeros, "files": len(labels)},
        )
    yield from _reduced_twice(examination, pixels, files, firsts)


def _gather(
    examination: Examination,
) -> tuple[Counter[float], dict[float, list[Path]], dict[float, Place]]:
    pixels: Counter[float] = Counter()
    files: dict[float, list[Path]] = {}
    firsts: dict[float, Place] = {}
    for facts in examination.images:
        for path, labels in facts.read_labels:
            pixels.update(labels.unknown)
            for value in labels.unknown:
                files.setdefault(value, []).append(path)
                firsts.setdefault(value, labels.first_unknown[value])
    return pixels, files, firsts


def _explained(examination: Examination, values: set[float]) -> set[float]:
    """Return the values that find_shifted_ids tells of."""
    if examination.data.encoding.colours or examination.data.encoding.values:
        return set()
    last = len(examination.classes)
    alone = last in values and not values - {last, TWICE_REDUCED}
    return ({last} if alone else set()) | (values & {TWICE_REDUCED})


def _reduced_twice(
    examination: Examination,
    pixels: Counter[float],
    files: dict[float, list[Path]],
    firsts: dict[float, Place],
) -> Iterator[Finding]:
    if TWICE_REDUCED not in pixels or len(examination.classes) >= TWICE_REDUCED:
        return
    missing = int(examination.class_pixels()[-1]) == 0
    yield Finding(
        code="reduced-twice",
        severity="error",
        what=(
            f"{counted(pixels[TWICE_REDUCED], 'pixel')} of "
            f"{counted(len(files[TWICE_REDUCED]), 'label')} hold 254"
            + (f", and the last class '{examination.classes.names[-1]}' occurs nowhere" * missing)
            + ": 1 was taken from every id twice (reduce_zero_label)"
        ),
        fix="make the labels anew from their source, with zero reduced once",
        places=(firsts[TWICE_REDUCED], *places_of(files[TWICE_REDUCED][1:])),
        counts={"pixels": pixels[TWICE_REDUCED], "files": len(files[TWICE_REDUCED])},
    )


def _too_many(
    examination: Examination,
    left: dict[float, int],
    files: dict[float, list[Path]],
    firsts: dict[float, Place],
) -> Finding:
    named = {path for value in left for path in files[value]}
    ordered = sorted(named)
    most = next(iter(left))
    total = sum(labels.num_unknown for f in examination.images for _, labels in f.read_labels)
    examples = ", ".join(_name(value, examination) for value in list(left)[:3])
    return Finding(
        code="unknown-values",
        severity="error",
        what=(
            f"{counted(total, 'pixel')} of {counted(len(ordered), 'label')} hold values that are "
            f"no class, {len(left):,} different ones, such as {examples}"
        ),
        fix=(
            "labels look so when they were resampled smoothly or compressed with loss; make them "
            "anew with nearest neighbours as PNG or GeoTIFF"
            + ", or set data.round_colours=true"
            * _would_round(left, examination)
        ),
        places=(firsts[most], *places_of([p for p in ordered if p != firsts[most].file])),
        counts={"pixels": total, "values": len(left), "files": len(ordered)},
    )


def _would_round(left: dict[float, int], examination: Examination) -> bool:
    """True if nearly all pixels have a class's colour once its parts are taken as 0 or 255."""
    colours = examination.data.encoding.colours
    if colours is None:
        return False
    rounded = {v: tuple(255 * (part >= 128) for part in _rgb(v)) for v in left}
    known = sum(count for value, count in left.items() if rounded[value] in colours)
    return known >= 0.99 * sum(left.values())


def _name(value: float, examination: Examination) -> str:
    if examination.data.encoding.colours is not None:
        return f"the colour {_rgb(value)}"
    return "NaN" if value == NOT_A_NUMBER else f"the value {value:g}"


def _rgb(value: float) -> Colour:
    code = int(value)
    return code >> 16, code >> 8 & 255, code & 255


def _suggest(value: float, examination: Examination) -> str:
    colours = examination.data.encoding.colours
    if colours is None:
        return (
            f"write the right class id for it, or {NODATA_ID} where it does not count; "
            f"the set has {examination.data.encoding.known}"
        )
    near = nearest_class(_rgb(value), colours)
    if near is None:
        return "no class has a colour near it; write a class colour, or add the class to the table"
    names = examination.classes.names
    meant = colours[near]
    label = "what is ignored" if meant == NODATA_ID else f"class '{names[meant]}'"
    return f"it seems to mean {label}, whose colour is {near}; write that colour for it"


def nearest_class(rgb: Colour, colours: Mapping[Colour, int]) -> Colour | None:
    """Return the colour that another one is meant to be, None if there is no clear one."""
    distances = {colour: math.dist(colour, rgb) for colour in colours}
    nearest = min(distances, key=lambda colour: distances[colour])
    others = [far for colour, far in distances.items() if colours[colour] != colours[nearest]]
    is_clear = distances[nearest] <= min([NEAREST, *(CLEARER * far for far in others)])
    return nearest if is_clear else None
