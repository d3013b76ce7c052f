"""One pass over the files of a data set, window by window; a damaged file is a fact, not an end."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cvmh.datasets.doctor.anchors import choose_bits
from cvmh.datasets.doctor.facts import Examination, ImageFacts, RasterFacts
from cvmh.datasets.doctor.image_pixels import ImageReader
from cvmh.datasets.doctor.label_pixels import LabelReader, is_picture
from cvmh.datasets.doctor.shift import Correlation, correlate
from cvmh.datasets.labelled import LabelEncoding, LabelledImage, SegmentationData
from cvmh.datasets.reading import ImageBands, choose_bands
from cvmh.errors import CvmhError
from cvmh.geo.footprint import find_footprint
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.geo.tiling import Window
from cvmh.progress import Progress, silent

SIDE = 1024
# Borders are correlated in so many windows of an image: enough to be sure, in seconds.
CORRELATED = 9


def survey(data: SegmentationData, *, progress: Progress = silent) -> Examination:
    """Read every file of a data set once and return what was found."""
    with bounded_cache():
        images = [_read_headers(entry) for entry in data.images]
        bands = _common_bands(images)
        pixels = sum(f.image.height * f.image.width for f in images if f.image is not None)
        bits = choose_bits(pixels)
        for done, facts in enumerate(images, start=1):
            try:
                _read_pixels(facts, data.encoding, len(data.classes), bands, bits)
            except CvmhError as error:
                facts.faults.append((_blamed(facts, error), str(error)))
            try:
                _read_eroded(facts, data.encoding, len(data.classes))
            except CvmhError as error:
                facts.faults.append((facts.entry.eroded or facts.entry.label, str(error)))
            progress("examine", done, len(images), "images")
    return Examination(data=data, images=images, bands=bands)


def _read_headers(entry: LabelledImage) -> ImageFacts:
    facts = ImageFacts(entry=entry)
    for path in dict.fromkeys((entry.image, entry.label, entry.eroded or entry.label)):
        try:
            with Raster(path) as raster:
                header = _header(path, raster)
        except CvmhError as error:
            facts.faults.append((path, str(error)))
            continue
        if path == entry.image:
            facts.image = header
        elif path == entry.label:
            facts.label = header
        else:
            facts.eroded = header
    return facts


def _header(path: Path, raster: Raster) -> RasterFacts:
    return RasterFacts(
        path=path,
        height=raster.height,
        width=raster.width,
        dtypes=raster.dtypes,
        band_names=raster.band_names,
        tagged_alpha=raster.tagged_alpha,
        is_palette=raster.is_palette,
        gsd=raster.gsd,
        footprint=find_footprint(raster),
    )


def _common_bands(images: list[ImageFacts]) -> ImageBands | None:
    """Return the bands that most images have, None if no image opens."""
    kinds = Counter(f.image.dtypes for f in images if f.image and len(set(f.image.dtypes)) == 1)
    if not kinds:
        return None
    usual = kinds.most_common(1)[0][0]
    alike = [f.image.path for f in images if f.image and f.image.dtypes == usual]
    try:
        return choose_bands(alike)
    except CvmhError:
        # An image whose pixels cannot be read is told of when it is its turn.
        names = tuple(f"band_{number}" for number in range(1, len(usual) + 1))
        return ImageBands(tuple(range(1, len(usual) + 1)), None, names, usual[0])


def _read_pixels(
    facts: ImageFacts,
    encoding: LabelEncoding,
    num_classes: int,
    bands: ImageBands | None,
    bits: int,
) -> None:
    if facts.image is None:
        if facts.label is not None and not is_picture(facts.label, encoding):
            _read_label_alone(facts, encoding, num_classes)
        return
    own = tuple(range(1, facts.image.num_bands + 1))
    fits = bands is not None and max(bands.bands) <= len(own)
    chosen, alpha = (bands.bands, bands.alpha) if bands is not None and fits else (own, None)
    with Raster(facts.entry.image) as raster:
        image = ImageReader(facts, raster, chosen, alpha, bits)
        if facts.label is None or is_picture(facts.label, encoding) or not _same_size(facts):
            for window in _windows(raster.height, raster.width):
                image.read(window)
            image.finish()
            if facts.label is not None and not is_picture(facts.label, encoding):
                _read_label_alone(facts, encoding, num_classes)
            return
        with Raster(facts.entry.label) as file:
            label = LabelReader(facts.entry.label, file, encoding, num_classes)
            facts.labels = label.facts
            windows = list(_windows(raster.height, raster.width))
            # Spread over the image, in its order.
            picked = set(np.linspace(0, len(windows) - 1, CORRELATED).round().astype(int).tolist())
            facts.correlation = Correlation.empty()
            for number, window in enumerate(windows):
                grey, valid = image.read(window)
                ids = label.read(window)
                if number in picked:
                    facts.correlation.add(correlate(grey, ids, valid))
        image.finish()


def _read_label_alone(facts: ImageFacts, encoding: LabelEncoding, num_classes: int) -> None:
    with Raster(facts.entry.label) as file:
        label = LabelReader(facts.entry.label, file, encoding, num_classes)
        facts.labels = label.facts
        for window in _windows(file.height, file.width):
            label.read(window)


def _read_eroded(facts: ImageFacts, encoding: LabelEncoding, num_classes: int) -> None:
    """Read the eroded label, on which some protocols score."""
    if facts.eroded is None or is_picture(facts.eroded, encoding):
        return
    with Raster(facts.eroded.path) as file:
        label = LabelReader(facts.eroded.path, file, encoding, num_classes)
        facts.eroded_labels = label.facts
        for window in _windows(file.height, file.width):
            label.read(window)


def _same_size(facts: ImageFacts) -> bool:
    assert facts.image is not None and facts.label is not None
    return (facts.image.height, facts.image.width) == (facts.label.height, facts.label.width)


def _windows(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, SIDE):
        for column in range(0, width, SIDE):
            yield Window(row, column, min(SIDE, height - row), min(SIDE, width - column))


def _blamed(facts: ImageFacts, error: CvmhError) -> Path:
    """Return the file of an image that an error speaks of."""
    return facts.entry.label if str(facts.entry.label) in str(error) else facts.entry.image
