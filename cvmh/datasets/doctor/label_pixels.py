"""Gathering the facts of a label's pixels, window by window."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.doctor.facts import LabelFacts, RasterFacts
from cvmh.datasets.doctor.finding import Place
from cvmh.datasets.labelled import LabelEncoding
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

# Stands for NaN among the values of a label, for NaN does not equal itself.
NOT_A_NUMBER = -99999.0
# A label that was compressed with loss has any number of values; so many are told apart.
MOST_UNKNOWN = 4096


def is_picture(label: RasterFacts, encoding: LabelEncoding) -> bool:
    """True if a label has not the bands of its encoding, such as a picture in place of ids."""
    return label.num_bands not in encoding.band_counts


class LabelReader:
    """Gathers the facts of a label's pixels."""

    def __init__(self, path: Path, file: Raster, encoding: LabelEncoding, num_classes: int) -> None:
        self._path, self._file, self._encoding = path, file, encoding
        self.facts = LabelFacts(class_pixels=np.zeros(num_classes, dtype=np.int64))

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
        labels = self.facts
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
        labels = self.facts
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
