"""One pass over the files of a data set, window by window; a damaged file is a fact, not an end."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.doctor.anchors import Anchors, choose_bits, find_anchors, join
from cvmh.datasets.doctor.facts import (
    BandFacts,
    Examination,
    ImageFacts,
    LabelFacts,
    RasterFacts,
)
from cvmh.datasets.doctor.finding import Place
from cvmh.datasets.doctor.shift import Correlation, correlate
from cvmh.datasets.doctor.thumb import ThumbSum
from cvmh.datasets.labelled import LabelEncoding, LabelledImage, SegmentationData
from cvmh.datasets.reading import ImageBands, choose_bands
from cvmh.errors import CvmhError
from cvmh.geo.footprint import find_footprint
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.geo.tiling import Window
from cvmh.geo.validity import Validity
from cvmh.progress import Progress, silent

SIDE = 1024
# Stands for NaN among the values of a label, for NaN does not equal itself.
NOT_A_NUMBER = -99999.0
# Borders are correlated in so many windows of an image: enough to be sure, in seconds.
CORRELATED = 9
# A label that was compressed with loss has any number of values; so many are told apart.
MOST_UNKNOWN = 4096


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
            progress("examine", done, len(images), "images")
    return Examination(data=data, images=images, bands=bands)


def is_picture(label: RasterFacts, encoding: LabelEncoding) -> bool:
    """True if a label has not the bands of its encoding, such as a picture in place of ids."""
    return label.num_bands not in encoding.band_counts


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
        image = _ImageReader(facts, raster, chosen, alpha, bits)
        if facts.label is None or is_picture(facts.label, encoding) or not _same_size(facts):
            for window in _windows(raster.height, raster.width):
                image.read(window)
            image.finish()
            if facts.label is not None and not is_picture(facts.label, encoding):
                _read_label_alone(facts, encoding, num_classes)
            return
        with Raster(facts.entry.label) as file:
            label = _LabelReader(facts, file, encoding, num_classes)
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
        label = _LabelReader(facts, file, encoding, num_classes)
        for window in _windows(file.height, file.width):
            label.read(window)


class _ImageReader:
    """Gathers the facts of an image's pixels."""

    def __init__(
        self,
        facts: ImageFacts,
        raster: Raster,
        bands: tuple[int, ...],
        alpha: int | None,
        bits: int,
    ) -> None:
        self._facts, self._raster, self._bands, self._bits = facts, raster, bands, bits
        self._rule = Validity(raster, bands, alpha=alpha)
        self._thumb = ThumbSum(raster.height, raster.width)
        self._digest = hashlib.blake2b(f"{raster.shape} {raster.dtypes}".encode(), digest_size=16)
        self._parts: list[Anchors] = []
        declared = [raster.nodata[band - 1] for band in bands]
        self._is_nan_nodata = any(value is not None and np.isnan(value) for value in declared)
        facts.bands = BandFacts.empty(len(bands))

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return a window as one grey band, and where it has data."""
        pixels = self._raster.read(window, self._bands)
        valid = self._rule.read(window, pixels)
        self._digest.update(np.ascontiguousarray(pixels).tobytes())
        self._parts.append(find_anchors(pixels[0], window, bits=self._bits))
        values = pixels.astype(np.float64)
        self._add_bands(values, valid, window)
        grey = np.where(valid, values[:3].mean(axis=0), 0).astype(np.float32)
        self._thumb.add(grey, window)
        return grey, valid

    def finish(self) -> None:
        """Keep what could only be known at the end."""
        self._facts.digest = self._digest.hexdigest()
        self._facts.thumb = self._thumb.result()
        self._facts.anchors = join(self._parts)

    def _add_bands(
        self, values: NDArray[np.float64], valid: NDArray[np.bool_], window: Window
    ) -> None:
        bands = self._facts.bands
        assert bands is not None
        wrong = ~np.isfinite(values).all(axis=0)
        if wrong.any() and not self._is_nan_nodata:
            row, column = np.argwhere(wrong)[0]
            bands.not_numbers += int(np.count_nonzero(wrong))
            bands.first_not_number = bands.first_not_number or Place(
                file=self._facts.entry.image,
                row=window.row + int(row),
                column=window.column + int(column),
            )
        if not valid.any():
            return
        for band, found in enumerate(values[:, valid]):
            bands.count[band] += found.size
            bands.total[band] += found.sum()
            bands.squares[band] += (found * found).sum()
            bands.lowest[band] = min(bands.lowest[band], found.min())
            bands.highest[band] = max(bands.highest[band], found.max())


class _LabelReader:
    """Gathers the facts of a label's pixels."""

    def __init__(
        self, facts: ImageFacts, file: Raster, encoding: LabelEncoding, num_classes: int
    ) -> None:
        self._file, self._encoding = file, encoding
        self._labels = LabelFacts(class_pixels=np.zeros(num_classes, dtype=np.int64))
        self._path = facts.entry.label
        facts.labels = self._labels

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the class ids (H, W) of a window, 255 where ignored or unknown."""
        pixels = self._file.read(window, range(1, self._encoding.num_bands + 1))
        ids, unknown = self._encoding.decode(pixels)
        declared = self._file.nodata[0]
        if declared is not None and self._encoding.colours is None:
            # As when a label is read for training: what is declared nodata does not count.
            unknown &= ~((pixels[0] == declared) | ((pixels[0] != pixels[0]) & np.isnan(declared)))
        self._count(ids, unknown)
        if unknown.any():
            self._keep_unknown(pixels, unknown, window)
        return ids

    def _count(self, ids: NDArray[np.uint8], unknown: NDArray[np.bool_]) -> None:
        labels = self._labels
        counts = np.bincount(ids.ravel(), minlength=NODATA_ID + 1)
        labels.class_pixels += counts[: len(labels.class_pixels)]
        labels.ignored += int(counts[NODATA_ID]) - int(np.count_nonzero(unknown))
        for first, second in ((ids[:-1], ids[1:]), (ids[:, :-1], ids[:, 1:])):
            differ = first != second
            at_edge = differ & ((first == NODATA_ID) | (second == NODATA_ID))
            labels.parted += int(np.count_nonzero(at_edge))
            labels.touching += int(np.count_nonzero(differ)) - int(np.count_nonzero(at_edge))

    def _keep_unknown(
        self, pixels: NDArray[np.generic], unknown: NDArray[np.bool_], window: Window
    ) -> None:
        labels = self._labels
        labels.num_unknown += int(np.count_nonzero(unknown))
        places = np.argwhere(unknown)
        codes = as_codes(pixels, self._encoding)[unknown]
        values, firsts, counts = np.unique(codes, return_index=True, return_counts=True)
        for value, first, count in zip(values.tolist(), firsts, counts.tolist(), strict=True):
            if value not in labels.unknown and len(labels.unknown) >= MOST_UNKNOWN:
                continue
            row, column = places[first].tolist()
            labels.unknown[value] = labels.unknown.get(value, 0) + count
            labels.first_unknown.setdefault(
                value, Place(file=self._path, row=window.row + row, column=window.column + column)
            )


def as_codes(pixels: NDArray[np.generic], encoding: LabelEncoding) -> NDArray[np.generic]:
    """Return label pixels (H, W) as numbers: a colour is red * 65536 + green * 256 + blue."""
    if encoding.colours is None:
        return np.nan_to_num(pixels[0], nan=NOT_A_NUMBER, posinf=np.inf, neginf=-np.inf)
    red, green, blue = pixels[:3].astype(np.int64)
    return (red << 16) | (green << 8) | blue


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
