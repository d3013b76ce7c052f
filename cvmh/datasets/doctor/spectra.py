"""What the bands hold: dtypes, constant bands, NaN, images unlike the others."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import Finding, counted, places_of

# An image is scaled otherwise if all its means are so many times those of the others, or less.
OTHER_SCALE = 5.0
# A difference of the means of two splits, in deviations of the pixels.
OTHER_SPLIT = 1.5
FEWEST_IMAGES = 3


def find_band_kinds(examination: Examination) -> Iterator[Finding]:
    """Tell images that differ in bands or dtype, palettes, and alpha that is data."""
    opened = [f for f in examination.images if f.image is not None]
    kinds = Counter(f.image.dtypes for f in opened if f.image)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [f for f in opened if f.image and f.image.dtypes != usual]
        found = odd[0].image.dtypes if odd[0].image else ()
        yield Finding(
            code="mixed-bands",
            severity="error",
            what=(
                f"{counted(len(odd), 'image')} with other bands than the other {kinds[usual]:,}, "
                f"such as {odd[0].entry.image.name}: {_kind(found)} instead of {_kind(usual)}"
            ),
            fix="convert them with gdal_translate (-b, -ot), or take them out of the set",
            places=places_of([f.entry.image for f in odd]),
            counts={"files": len(odd)},
        )
    palettes = [f.entry.image for f in opened if f.image and f.image.is_palette]
    if palettes:
        yield Finding(
            code="palette-image",
            severity="error",
            what=f"{counted(len(palettes), 'image')} with numbers of a palette in place of values",
            fix="expand them with gdal_translate -expand rgb",
            places=places_of(palettes),
            counts={"files": len(palettes)},
        )
    yield from _alpha(examination, opened)


def find_band_values(examination: Examination) -> Iterator[Finding]:
    """Tell dtypes that are wider than their values, NaN, and constant bands."""
    if examination.bands is None:
        return
    usual = [f for f in _alike(examination) if f.bands is not None and f.bands.count.any()]
    if not usual:
        return
    lowest = np.min([f.bands.lowest for f in usual if f.bands], axis=0)
    highest = np.max([f.bands.highest for f in usual if f.bands], axis=0)
    names, dtype = examination.bands.names, np.dtype(examination.bands.dtype)
    if dtype.kind in "iu" and dtype.itemsize > 1 and lowest.min() >= 0 and highest.max() <= 255:
        yield Finding(
            code="wide-dtype",
            severity="warning",
            what=f"the images are {dtype} but hold no value above {highest.max():.0f}",
            fix="write them as uint8, so that the network fits the uint8 scenes you have",
            places=places_of([f.entry.image for f in usual]),
            counts={"highest": float(highest.max())},
        )
    for number in np.flatnonzero(lowest == highest):
        yield Finding(
            code="constant-band",
            severity="warning",
            what=f"band {names[number]} has the same value {lowest[number]:g} in all images",
            fix="choose the other bands with data.bands, or check how the images were made",
            places=places_of([f.entry.image for f in usual]),
            counts={"band": examination.bands.bands[number]},
        )
    for facts in usual:
        yield from _constant_in_one(facts, names, lowest == highest)
    for facts in examination.images:
        yield from _not_numbers(facts)


def find_odd_scales(examination: Examination) -> Iterator[Finding]:
    """Tell images and splits whose values differ wildly from the others'."""
    usual = [f for f in _alike(examination) if f.bands is not None and f.bands.count.any()]
    if len(usual) < FEWEST_IMAGES:
        return
    means = np.array([f.bands.mean for f in usual if f.bands])
    middle = np.median(means, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(middle > 0, np.abs(means) / middle, 1.0)
    odd = (ratios > OTHER_SCALE).all(axis=1) | (ratios < 1 / OTHER_SCALE).all(axis=1)
    for number in np.flatnonzero(odd):
        facts, ratio = usual[number], float(np.median(ratios[number]))
        yield Finding(
            code="odd-scale",
            severity="warning",
            what=(
                f"{facts.entry.image.name} has {ratio:.2g} times the usual values: "
                f"mean {means[number].mean():.4g}, others {middle.mean():.4g}"
            ),
            fix="scale it like the others (0..1, 0..255, reflectance), or take it out of the set",
            places=places_of([facts.entry.image]),
            counts={"ratio": round(ratio, 4), "mean": round(float(means[number].mean()), 4)},
        )
    if not odd.any():
        yield from _odd_splits(examination, usual)


def _odd_splits(examination: Examination, usual: list[ImageFacts]) -> Iterator[Finding]:
    train = [f for f in usual if f.entry.split == "train"]
    if not train or examination.bands is None:
        return
    mean, std = _pooled(train)
    for split in {f.entry.split: None for f in usual if f.entry.split != "train"}:
        other, spread = _pooled([f for f in usual if f.entry.split == split])
        scale = np.maximum(std, spread)
        away = np.abs(other - mean) / np.where(scale > 0, scale, 1)
        band = int(away.argmax())
        if away[band] > OTHER_SPLIT:
            yield Finding(
                code="odd-split",
                severity="warning",
                what=(
                    f"band {examination.bands.names[band]} has mean {other[band]:.4g} in split "
                    f"'{split}' and {mean[band]:.4g} in 'train', {away[band]:.1f} deviations apart"
                ),
                fix="check that the splits come from one sensor, season and scaling",
                counts={"deviations": round(float(away[band]), 2)},
            )


def _pooled(images: list[ImageFacts]) -> tuple[np.ndarray, np.ndarray]:
    bands = [f.bands for f in images if f.bands is not None]
    count = np.sum([b.count for b in bands], axis=0)
    mean = np.sum([b.total for b in bands], axis=0) / count
    square = np.sum([b.squares for b in bands], axis=0) / count
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _alike(examination: Examination) -> list[ImageFacts]:
    """Return the images that were read with the usual bands."""
    bands = examination.bands
    if bands is None:
        return []
    return [
        f
        for f in examination.images
        if f.image is not None
        and max(bands.bands) <= f.image.num_bands
        and {f.image.dtypes[band - 1] for band in bands.bands} == {bands.dtype}
    ]


def _alpha(examination: Examination, opened: list[ImageFacts]) -> Iterator[Finding]:
    bands = examination.bands
    tagged = [f for f in opened if f.image and f.image.tagged_alpha]
    if bands is not None and tagged and bands.alpha is None:
        band = tagged[0].image.tagged_alpha if tagged[0].image else None
        yield Finding(
            code="alpha-is-data",
            severity="note",
            what=f"band {band} of {counted(len(tagged), 'image')} is tagged alpha but holds data",
            fix="nothing: it is read as a band; gdal_edit.py -colorinterp_4 undefined cures it",
            places=places_of([f.entry.image for f in tagged]),
            counts={"band": band or 0, "files": len(tagged)},
        )


def _constant_in_one(
    facts: ImageFacts,
    names: tuple[str, ...],
    everywhere: np.ndarray,
) -> Iterator[Finding]:
    assert facts.bands is not None
    constant = (facts.bands.lowest == facts.bands.highest) & ~everywhere
    if constant.any():
        listed = ", ".join(names[number] for number in np.flatnonzero(constant))
        yield Finding(
            code="constant-band",
            severity="warning",
            what=f"in {facts.entry.image.name}, band {listed} has the same value everywhere",
            fix="fetch the image again, or take it out of the set",
            places=places_of([facts.entry.image]),
            counts={"bands": int(constant.sum())},
        )


def _not_numbers(facts: ImageFacts) -> Iterator[Finding]:
    if facts.bands is not None and facts.bands.first_not_number is not None:
        yield Finding(
            code="not-a-number",
            severity="warning",
            what=(
                f"{facts.entry.image.name} is NaN or infinite in "
                f"{counted(facts.bands.not_numbers, 'pixel')}"
            ),
            fix="they are read as no data; fill them, or declare NaN as nodata if that is meant",
            places=(facts.bands.first_not_number,),
            counts={"pixels": facts.bands.not_numbers},
        )


def _kind(dtypes: tuple[str, ...]) -> str:
    return f"{len(dtypes)} of {'/'.join(sorted(set(dtypes)))}"
