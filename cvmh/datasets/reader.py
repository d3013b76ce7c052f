"""Windows of labelled images as a network takes them: scaled, with their labels and validity.

Legend: C bands, H height, W width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.labelled import LabelEncoding, LabelledImage
from cvmh.datasets.opened import OpenRasters
from cvmh.datasets.reading import (
    ImageBands,
    check_bands,
    check_label,
    read_image,
    read_label,
)
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window


class Cut(NamedTuple):
    """A piece of a labelled image.

    ``image`` (C, H, W) float32 is 0 where a sample is missing; ``label`` (H, W) is 255 where it
    does not count; ``validity`` (H, W) is true where the image has data.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    validity: NDArray[np.bool_]

    @property
    def is_labelled(self) -> bool:
        """True if any pixel counts."""
        return bool((self.label != NODATA_ID).any())

    def padded(self, height: int, width: int) -> "Cut":
        """Return it in the upper left of a larger cut without data."""
        if self.label.shape == (height, width):
            return self
        extent = (slice(0, self.label.shape[0]), slice(0, self.label.shape[1]))
        larger = empty_cut(len(self.image), height, width)
        larger.image[:, *extent] = self.image
        larger.label[extent] = self.label
        larger.validity[extent] = self.validity
        return larger


def empty_cut(num_bands: int, height: int, width: int) -> Cut:
    """Return a cut without data."""
    return Cut(
        np.zeros((num_bands, height, width), dtype=np.float32),
        np.full((height, width), NODATA_ID, dtype=np.uint8),
        np.zeros((height, width), dtype=bool),
    )


class Reader:
    """Reads windows of labelled images, normalised; keeps its files open."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        encoding: LabelEncoding,
        bands: ImageBands,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        tile: int,
    ) -> None:
        self.images = tuple(images)
        self.encoding = encoding
        self.bands = bands
        self.tile = tile
        self.mean = np.asarray(mean, dtype=np.float32)[:, None, None]
        self.std = np.asarray(std, dtype=np.float32)[:, None, None]
        self.sizes = [_checked_size(image, bands, encoding) for image in images]
        self._rasters = OpenRasters()

    def read(self, number: int, window: Window) -> Cut:
        """Return a window padded to a whole tile.

        Raises:
            DataError: the label holds a value that its encoding does not know.
            RasterError: a file cannot be read.
        """
        return self.read_window(number, window).padded(self.tile, self.tile)

    def read_window(self, number: int, window: Window) -> Cut:
        """Return a window as large as it is; raises as :meth:`read` does."""
        return self.read_behind(number, window, self.read_ids(number, window))

    def read_ids(self, number: int, window: Window) -> NDArray[np.uint8]:
        """Return the label (H, W) of a window, also where the image has no data."""
        return read_label(self._rasters.get(self.images[number].label), self.encoding, window)

    def read_behind(self, number: int, window: Window, ids: NDArray[np.uint8]) -> Cut:
        """Return a window whose label was read; the label is modified."""
        image, validity = read_image(
            self._rasters.get(self.images[number].image), self.bands, window
        )
        with np.errstate(over="ignore"):
            image -= self.mean
            image /= self.std
        known = np.isfinite(image)
        if not known.all():
            image[~known] = 0
        ids[~validity] = NODATA_ID
        return Cut(image, ids, validity)


def _checked_size(
    entry: LabelledImage, chosen: ImageBands, encoding: LabelEncoding
) -> tuple[int, int]:
    with Raster(entry.image) as raster, Raster(entry.label) as label:
        check_bands(raster, chosen)
        check_label(label, raster, encoding)
        return raster.height, raster.width
