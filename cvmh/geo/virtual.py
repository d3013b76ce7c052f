"""Where the sources of a VRT lie on it, read from its XML."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import RasterError
from cvmh.geo.opening import open_dataset

# GDAL's tolerance where a source's rectangle ends within a pixel.
EDGE = 0.001
# Sources are opened to learn what they leave out; beyond so many, each counts as whole.
MAX_OPENED = 1000
# A VRT of VRTs of VRTs; deeper ones count as whole.
MAX_DEPTH = 8

Box = tuple[float, float, float, float]
FindRectangles = Callable[..., NDArray[np.int64] | None]


class Source(NamedTuple):
    """A part of a file, and where it lies on the VRT; boxes are left, top, width, height."""

    path: str
    taken: Box
    placed: Box


def list_sources(dataset: Any, bands: Sequence[int]) -> dict[Source, set[int]] | None:
    """Return the sources of some bands, with the bands that each uses of its file.

    None if the VRT computes its pixels, so that they may come from anywhere.
    """
    root = ElementTree.fromstring(dataset.tags(ns="xml:VRT")["xml:VRT"])
    if root.get("subClass"):
        return None
    sources: dict[Source, set[int]] = defaultdict(set)
    for number, band in enumerate(root.findall("VRTRasterBand"), start=1):
        if number not in bands:
            continue
        if band.get("subClass", "VRTSourcedRasterBand") != "VRTSourcedRasterBand":
            return None
        for element in [child for child in band if child.tag.endswith("Source")]:
            source = _read_source(element, dataset)
            if source is None:
                return None
            used = element.findtext("SourceBand", "1")
            # "mask,1" is a mask that was made a band; its blocks are not those of the band.
            sources[source].add(int(used) if used.isdigit() else 0)
    return dict(sources)


def covered_by_sources(
    dataset: Any,
    sources: dict[Source, set[int]],
    find_rectangles: FindRectangles,
    *,
    depth: int,
) -> NDArray[np.int64]:
    """Return the rectangles (number, 4) of a VRT that its sources fill.

    Args:
        dataset: the VRT.
        sources: those of its used bands.
        find_rectangles: says of an open dataset and its bands where they are stored.
        depth: how many VRTs this one lies in.
    """
    may_open = len(sources) <= MAX_OPENED and depth < MAX_DEPTH
    found = [np.zeros((0, 4), dtype=np.int64)]
    for source, bands in sources.items():
        whole = np.array([_outwards(source.placed)])
        parts = _parts(source, bands, find_rectangles, depth) if may_open else None
        found.append(whole if parts is None else _common(parts, whole[0]))
    limits = [dataset.height, dataset.height, dataset.width, dataset.width]
    clipped = np.clip(np.concatenate(found), 0, limits)
    is_real = (clipped[:, 0] < clipped[:, 1]) & (clipped[:, 2] < clipped[:, 3])
    return np.unique(clipped[is_real], axis=0)


def _read_source(element: ElementTree.Element, dataset: Any) -> Source | None:
    name = element.find("SourceFilename")
    if name is None or not name.text:
        return None
    is_relative = name.get("relativeToVRT") == "1"
    path = str(Path(dataset.name).parent / name.text) if is_relative else name.text
    # Without rectangles the source lies in the upper left corner, as large as it is.
    corner = (0.0, 0.0, float(dataset.width), float(dataset.height))
    placed, taken = element.find("DstRect"), element.find("SrcRect")
    if placed is None or taken is None:
        return Source(path, corner, corner)
    return Source(path, _read_box(taken), _read_box(placed))


def _read_box(element: ElementTree.Element) -> Box:
    left, top, width, height = (
        float(element.get(key, "0")) for key in ("xOff", "yOff", "xSize", "ySize")
    )
    return left, top, width, height


def _outwards(box: Box) -> list[int]:
    left, top, width, height = box
    return [
        math.floor(top + EDGE),
        math.ceil(top + height - EDGE),
        math.floor(left + EDGE),
        math.ceil(left + width - EDGE),
    ]


def _parts(
    source: Source, bands: set[int], find_rectangles: FindRectangles, depth: int
) -> NDArray[np.int64] | None:
    """Return where the source is stored, in rows and columns of the VRT, None for everywhere."""
    if 0 in bands or not Path(source.path).is_file():
        # Part of a mask, or elsewhere, which is too slow to ask.
        return None
    (left, top, *size), (to_left, to_top, *to_size) = source.taken, source.placed
    down, right = to_top - top, to_left - left
    if size != to_size or not down.is_integer() or not right.is_integer():
        # Resampled, which may smear the edges.
        return None
    try:
        with open_dataset(source.path) as dataset:
            stored = find_rectangles(dataset, sorted(bands), depth=depth + 1)
            # What a VRT takes from beyond the edges of a source is not there.
            whole = np.array([[0, dataset.height, 0, dataset.width]], dtype=np.int64)
    except RasterError:
        # It is for the reader of the pixels to say what is wrong with it.
        return None
    stored = whole if stored is None else stored
    return stored + np.array([down, down, right, right], dtype=np.int64)


def _common(rectangles: NDArray[np.int64], frame: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what of each rectangle lies inside a frame; some may become empty."""
    top, bottom, left, right = frame.tolist()
    return np.clip(rectangles, [top, top, left, left], [bottom, bottom, right, right])
