"""What a training split holds: bands, dtype, statistics, class counts; computed once and stored."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from cvmh.classes import NODATA_ID
from cvmh.datasets.class_index import DAMAGED, ClassCounter, ClassIndex
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.moments import Moments
from cvmh.datasets.reading import check_label, choose_bands, read_image, read_label
from cvmh.files import cache_folder, write_complete
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.progress import Progress, silent
from cvmh.settings import Settings

# Rows are read so many pixels at a time, whatever the width.
PIXELS_AT_ONCE = 4_000_000
# Bytes of the head and of the tail of each file that enter the fingerprint.
PROBE = 65_536


class DataSummary(Settings):
    """Facts about a training split.

    ``mean`` and ``std`` are per band over valid pixels, in the units of ``dtype``; ``gsd`` is
    the median ground sampling distance in metres per pixel; ``class_pixels`` counts the labels of
    valid pixels.
    """

    bands: tuple[int, ...]
    alpha: int | None
    band_names: tuple[str, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    gsd: float | None
    class_pixels: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True)
class Survey:
    """What a split holds, and where in it the classes are."""

    summary: DataSummary
    index: ClassIndex


def summarise(
    data: SegmentationData,
    split: str | Sequence[str],
    *,
    bands: Sequence[int] | None = None,
    progress: Progress = silent,
) -> DataSummary:
    """Return the summary of a split, or of several together; see :func:`survey`."""
    return survey(data, split, bands=bands, progress=progress).summary


def survey(
    data: SegmentationData,
    split: str | Sequence[str],
    *,
    bands: Sequence[int] | None = None,
    progress: Progress = silent,
) -> Survey:
    """Read a split, or several, once and return what training needs to know about them.

    The result is kept in the cache folder (``CVMH_CACHE``, default ``~/.cache/cvmh``) under the
    fingerprint of the files, so that the second run on the same data starts at once.

    Raises:
        DataError: images differ in bands or dtype, an image and its label differ in size, a
            label holds an id that is not in the class table, or no pixel is valid.
        RasterError: a file cannot be read.
    """
    images = data.of_split(split)
    mark = fingerprint(images, data)
    written = [path.stat().st_mtime_ns for image in images for path in (image.image, image.label)]
    known = f"{mark} {split} {list(bands or ())} {data.band_names} {data.gsd} {written}"
    stored = cache_folder() / hashlib.sha256(known.encode()).hexdigest()[:24]
    found = _stored(stored)
    if found is not None:
        return found
    computed = _compute(data, images, bands, mark, progress)
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_complete(stored.with_suffix(".npz"), computed.index.to_bytes())
        write_complete(stored.with_suffix(".json"), computed.summary.model_dump_json())
    except OSError:
        # A cache that cannot be written costs the next run some seconds, nothing else.
        progress("statistics not stored", 1, 1, "files")
    return computed


def _stored(path: Path) -> Survey | None:
    """Return what was computed before; None if it is not there, damaged, or of an older version."""
    try:
        content = json.loads(path.with_suffix(".json").read_text())
        index = ClassIndex.from_bytes(path.with_suffix(".npz").read_bytes())
        return Survey(DataSummary.model_validate(content), index)
    except (*DAMAGED, ValidationError):
        return None


def fingerprint(images: Sequence[LabelledImage], data: SegmentationData) -> str:
    """Return a hash of the names, sizes, heads and tails of the files, of classes and encoding."""
    known = f"{json.dumps(data.classes.to_json())} {data.encoding}"
    digest = hashlib.sha256(known.encode())
    for image in images:
        for path in (image.image, image.label):
            size = path.stat().st_size
            digest.update(f"{path.name} {size} ".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(PROBE))
                stream.seek(max(0, size - PROBE))
                digest.update(stream.read(PROBE))
    return digest.hexdigest()


def _compute(
    data: SegmentationData,
    images: Sequence[LabelledImage],
    wanted: Sequence[int] | None,
    mark: str,
    progress: Progress,
) -> Survey:
    chosen = choose_bands([image.image for image in images], wanted)
    moments = Moments(len(chosen.bands))
    counter = ClassCounter(len(data.classes))
    resolutions = []
    for done, image in enumerate(images, start=1):
        with Raster(image.image) as raster, Raster(image.label) as label:
            check_label(label, raster, data.encoding)
            resolutions.append(raster.gsd)
            counter.begin(raster.height, raster.width)
            for window in _strips(raster.height, raster.width):
                values, validity = read_image(raster, chosen, window)
                moments.add(values)
                ids = read_label(label, data.encoding, window)
                counter.add(window.row, np.where(validity, ids, np.uint8(NODATA_ID)))
        progress("statistics", done, len(images), "images")
    mean, std = moments.result(images[0].image.parent)
    known = [resolution for resolution in resolutions if resolution is not None]
    index = counter.result()
    summary = DataSummary(
        bands=chosen.bands,
        alpha=chosen.alpha,
        band_names=_declared_names(data, chosen.bands) or chosen.names,
        dtype=chosen.dtype,
        mean=mean,
        std=std,
        gsd=data.gsd or (float(np.median(known)) if known else None),
        class_pixels=tuple(index.class_pixels.tolist()),
        fingerprint=mark,
    )
    return Survey(summary, index)


def _declared_names(data: SegmentationData, bands: Sequence[int]) -> tuple[str, ...] | None:
    """Return what the data set calls the bands; a file with more bands than names has its own."""
    names = data.band_names
    if names is None or max(bands) > len(names):
        return None
    return tuple(names[band - 1] for band in bands)


def _strips(height: int, width: int) -> list[Window]:
    rows = max(1, PIXELS_AT_ONCE // width)
    return [Window(row, 0, min(rows, height - row), width) for row in range(0, height, rows)]
