"""A diagnosis as an HTML page that stands alone, with pictures of what is wrong."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.doctor.examine import Diagnosis
from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import SEVERITIES, Finding, Place, counted, relative
from cvmh.datasets.doctor.label_pixels import is_picture
from cvmh.datasets.doctor.text import band_rows, headline, verdict
from cvmh.errors import CvmhError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.page import Html, element, figure, joined, picture, section, swatch, table, write_page
from cvmh.plots import colour_ids, stretch

# A page is for looking: so many files and pictures of a finding, and so many pictures in all.
FILES, PICTURES, ALL_PICTURES = 20, 2, 30
# The side of what is shown around a place, in pixels.
SIDE = 256
# No class table is likely to have it: label values that are no class.
UNKNOWN_COLOUR = (255, 0, 255)
GAP = 4


def to_page(diagnosis: Diagnosis) -> str:
    """Return the page: findings with pictures, classes with their colours and shares, bands."""
    parts = [element("p", headline(diagnosis)), element("p", verdict(diagnosis))]
    shown = iter(range(ALL_PICTURES))
    for severity in SEVERITIES:
        found = [f for f in diagnosis.findings if f.severity == severity]
        if found:
            told = (_finding(finding, diagnosis, shown) for finding in found)
            parts.append(section(f"{severity.capitalize()}s", *told, anchor=severity))
    if diagnosis.examination is not None:
        parts.append(section("Classes", _class_table(diagnosis.examination), anchor="classes"))
        parts.append(section("Bands", _band_table(diagnosis.examination), anchor="bands"))
    return write_page(f"The data set {diagnosis.root.name}", *parts)


def _finding(finding: Finding, diagnosis: Diagnosis, shown: Iterator[int]) -> Html:
    files = [relative(place.file, diagnosis.root) for place in finding.places]
    files = list(dict.fromkeys(files))
    more = f" and {len(files) - FILES} more" if len(files) > FILES else ""
    where = [element("p", ", ".join(files[:FILES]) + more, attributes={"class": "quiet"})]
    return joined(
        [
            element(
                "h3",
                f"{finding.what[:1].upper()}{finding.what[1:]} ",
                element("code", finding.code),
            ),
            *(where if files else []),
            element("p", f"What to do: {finding.fix}."),
            *_pictures(finding, diagnosis, shown),
        ]
    )


def _pictures(finding: Finding, diagnosis: Diagnosis, shown: Iterator[int]) -> Iterator[Html]:
    if diagnosis.examination is None:
        return
    by_file = {
        path: facts
        for facts in diagnosis.examination.images
        for path in (facts.entry.image, facts.entry.label)
    }
    for place in [p for p in finding.places if p.file in by_file][:PICTURES]:
        facts = by_file[place.file]
        try:
            panels = _panels(facts, place, diagnosis.examination)
        except CvmhError:
            # A damaged file has no picture; the finding says what is wrong with it.
            continue
        if not panels or next(shown, None) is None:
            continue
        name = relative(place.file, diagnosis.root)
        spot = "" if place.row is None else f", around row {place.row}, column {place.column}"
        caption = f"{name}{spot}: {', '.join(panels)}"
        yield figure(picture(_side_by_side(panels), alt=caption), caption=caption)


def _panels(
    facts: ImageFacts, place: Place, examination: Examination
) -> dict[str, NDArray[np.uint8]]:
    """Return image, label and overlay (H, W, 3) by name, as far as they can be read."""
    if facts.image is None:
        return {}
    window = _window(place, facts.image.height, facts.image.width)
    image = _picture(facts.entry.image, facts.image.num_bands, window)
    if facts.label is None or is_picture(facts.label, examination.data.encoding):
        return {"image": image}
    label = _coloured(facts.entry.label, window, examination)
    if label.shape != image.shape:
        return {"image": image, "label": label}
    return {"image": image, "label": label, "both": (0.55 * image + 0.45 * label).astype(np.uint8)}


def _side_by_side(panels: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(len(panel) for panel in panels.values())
    padded = [
        np.pad(panel, ((0, height - len(panel)), (0, GAP), (0, 0)), constant_values=255)
        for panel in panels.values()
    ]
    return np.concatenate(padded, axis=1)


def _window(place: Place, height: int, width: int) -> Window | None:
    """Return what to show around a pixel, None for the whole raster made small."""
    if place.row is None or place.column is None:
        return None
    rows, columns = min(SIDE, height), min(SIDE, width)
    row = min(max(0, place.row - rows // 2), height - rows)
    column = min(max(0, place.column - columns // 2), width - columns)
    return Window(row, column, rows, columns)


def _read(path: Path, num_bands: int, window: Window | None) -> NDArray[np.generic]:
    bands = range(1, num_bands + 1)
    with Raster(path) as raster:
        return raster.read_small(bands, most=SIDE) if window is None else raster.read(window, bands)


def _picture(path: Path, num_bands: int, window: Window | None) -> NDArray[np.uint8]:
    values = _read(path, min(3, num_bands) if num_bands >= 3 else 1, window)
    finite = np.isfinite(values).all(axis=0)
    return stretch(np.where(np.isfinite(values), values, 0), finite)


def _coloured(path: Path, window: Window | None, examination: Examination) -> NDArray[np.uint8]:
    encoding = examination.data.encoding
    ids, unknown = encoding.decode(_read(path, encoding.num_bands, window))
    coloured = colour_ids(np.where(unknown, np.uint8(NODATA_ID), ids), examination.classes)
    coloured[unknown] = UNKNOWN_COLOUR
    return coloured


def _class_table(examination: Examination) -> Html:
    splits = examination.by_split()
    counts = {split: examination.class_pixels(images) for split, images in splits.items()}
    rows = [
        [
            joined([swatch(entry.rgb), entry.name]),
            str(entry.id),
            *(_share(int(pixels[entry.id]), int(pixels.sum())) for pixels in counts.values()),
        ]
        for entry in examination.classes
    ]
    head = [
        "class",
        "id",
        *(f"{split} ({counted(len(images), 'image')})" for split, images in splits.items()),
    ]
    return table(head, rows, caption="Share of the labelled pixels of each split")


def _band_table(examination: Examination) -> Html:
    keys = ("lowest", "highest", "mean", "std")
    rows = [
        [str(row["name"]), *(f"{row[key]:,.4g}" for key in keys)] for row in band_rows(examination)
    ]
    head = ["band", "lowest", "highest", "mean", "deviation"]
    return table(head, rows, caption="Values of the valid pixels of all images")


def _share(pixels: int, total: int) -> str:
    return "none" if not pixels else f"{pixels / total:.2%}"
