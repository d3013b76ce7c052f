"""What a training split holds: bands, dtype, statistics, class counts; computed once and stored."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cvmh.config import Settings
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.reading import check_label, choose_bands, read_image, read_label
from cvmh.errors import DataError
from cvmh.files import write_complete
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.progress import Progress, silent

# Rows are read so many pixels at a time, whatever the width.
PIXELS_AT_ONCE = 4_000_000
# Bytes of the head and of the tail of each file that enter the fingerprint.
PROBE = 65_536


class DataSummary(Settings):
    """Facts about a training split.

    ``mean`` and ``std`` are per band over valid pixels, in the units of ``dtype``; ``gsd`` is
    the median ground sampling distance in metres per pixel; ``class_pixels`` counts labels.
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


def summarise(
    data: SegmentationData,
    split: str | Sequence[str],
    *,
    bands: Sequence[int] | None = None,
    progress: Progress = silent,
) -> DataSummary:
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
    declared = f"{data.band_names} {data.gsd}"
    key = hashlib.sha256(f"{mark} {split} {list(bands or ())} {declared}".encode()).hexdigest()[:24]
    stored = _cache_folder() / f"{key}.json"
    try:
        return DataSummary.model_validate(json.loads(stored.read_text()))
    except (OSError, ValueError, ValidationError):
        # Not there, or from an older version: computed again below.
        summary = _compute(data, images, bands, mark, progress)
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_complete(stored, summary.model_dump_json())
    except OSError:
        # A cache that cannot be written costs the next run some seconds, nothing else.
        progress("statistics not stored", 1, 1, "files")
    return summary


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
) -> DataSummary:
    chosen = choose_bands([image.image for image in images], wanted)
    moments = Moments(len(chosen.bands))
    counts = np.zeros(len(data.classes), dtype=np.int64)
    resolutions = []
    for done, image in enumerate(images, start=1):
        with Raster(image.image) as raster, Raster(image.label) as label:
            check_label(label, raster, data.encoding)
            resolutions.append(raster.gsd)
            for window in _strips(raster.height, raster.width):
                moments.add(read_image(raster, chosen, window)[0])
                ids = read_label(label, data.encoding, window)
                counts += np.bincount(ids[ids < len(data.classes)], minlength=len(data.classes))
        progress("statistics", done, len(images), "images")
    mean, std = moments.result(images[0].image.parent)
    known = [resolution for resolution in resolutions if resolution is not None]
    return DataSummary(
        bands=chosen.bands,
        alpha=chosen.alpha,
        band_names=_declared_names(data, chosen.bands) or chosen.names,
        dtype=chosen.dtype,
        mean=mean,
        std=std,
        gsd=data.gsd or (float(np.median(known)) if known else None),
        class_pixels=tuple(int(count) for count in counts),
        fingerprint=mark,
    )


def _declared_names(data: SegmentationData, bands: Sequence[int]) -> tuple[str, ...] | None:
    """Return what the data set calls the bands; a file with more bands than names has its own."""
    names = data.band_names
    if names is None or max(bands) > len(names):
        return None
    return tuple(names[band - 1] for band in bands)


class Moments:
    """Mean and deviation of a stream of pixels per band, in float64 (Chan's pairwise update)."""

    def __init__(self, num_bands: int) -> None:
        self.count = np.zeros(num_bands)
        self.mean = np.zeros(num_bands)
        self.squares = np.zeros(num_bands)

    def add(self, values_CHW: NDArray[np.float32]) -> None:
        """Add pixels (bands, H, W); NaN samples do not count."""
        for band, values in enumerate(values_CHW):
            found = values[~np.isnan(values)].astype(np.float64)
            if not found.size:
                continue
            mean, total = found.mean(), self.count[band] + found.size
            delta = mean - self.mean[band]
            self.squares[band] += ((found - mean) ** 2).sum()
            self.squares[band] += delta**2 * self.count[band] * found.size / total
            self.mean[band] += delta * found.size / total
            self.count[band] = total

    def result(self, folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation; a constant band gets deviation 1.

        Raises:
            DataError: a band had no pixel at all.
        """
        if not self.count.all():
            raise DataError(f"no image in {folder} has a valid pixel; check their nodata values")
        std = np.sqrt(self.squares / self.count)
        std[std == 0] = 1.0
        return tuple(self.mean.tolist()), tuple(std.tolist())


def _strips(height: int, width: int) -> list[Window]:
    rows = max(1, PIXELS_AT_ONCE // width)
    return [Window(row, 0, min(rows, height - row), width) for row in range(0, height, rows)]


def _cache_folder() -> Path:
    return Path(os.environ.get("CVMH_CACHE") or Path.home() / ".cache" / "cvmh")
