"""Samples for a network: random crops to train on, whole tiles to validate on.

A sample is (image (bands, tile, tile) float32, label (tile, tile) int64, index). Every random
choice is drawn from (seed, index), so batches do not depend on the number of workers and
a resumed run draws what an uninterrupted one would have drawn.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cvmh.classes import NODATA_ID
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.mixing import cutmix_box, lay, lay_mosaic
from cvmh.datasets.places import AnyPlaces, Places
from cvmh.datasets.reader import Cut, Reader
from cvmh.datasets.resample import resample
from cvmh.datasets.samplers import NO_TILE
from cvmh.geo.raster import limit_cache
from cvmh.geo.tiling import Window

Sample = tuple[Tensor, Tensor, int]
# A crop without any labelled pixel teaches nothing; so many places are tried.
TRIES = 10
# Bytes of decoded blocks that a loading process may keep; GDAL would take a part of the machine.
WORKER_CACHE = 256 << 20


class TrainingCrops(Dataset[Sample]):
    """Random crops, augmented.

    Args:
        reader: reads the images of the split.
        augmentation: its settings also say of how many places and in which scale a crop is.
        seed: fixes every crop, together with its number.
        places: where crops lie; default anywhere, an image in proportion to its area.
    """

    def __init__(
        self,
        reader: Reader,
        augmentation: Augmentation,
        *,
        seed: int,
        places: Places | None = None,
    ) -> None:
        self.reader = reader
        self.augmentation = augmentation
        self.seed = seed
        self.places = AnyPlaces(reader) if places is None else places

    def __getitem__(self, index: int) -> Sample:
        """Return crop number ``index``, counted over all epochs."""
        generator = np.random.default_rng([self.seed, index])
        settings, tile = self.augmentation.settings, self.reader.tile
        # What is mixed in has draws of its own: the rest of a crop does not depend on it.
        (other,) = generator.spawn(1)
        is_mosaic, is_cutmix = other.random(2) < (settings.mosaic, settings.cutmix)
        if is_mosaic:
            crop = lay_mosaic(len(self.reader.mean), tile, other, self._cut)
        else:
            crop = self._cut(generator, tile, tile)
            if is_cutmix:
                crop = lay(crop, [cutmix_box(other, tile)], other, self._cut)
        image, label = self.augmentation(*crop, seed=int(generator.integers(2**31)))
        return _sample(image, label, index)

    def _cut(self, generator: np.random.Generator, height: int, width: int) -> Cut:
        """Return a piece of so many pixels, in a scale of its own, from a place with labels."""
        smallest, largest = self.augmentation.settings.scale
        scale = 1.0
        if smallest < largest:
            scale = float(np.exp(generator.uniform(np.log(smallest), np.log(largest))))
        elif smallest != 1:
            scale = smallest
        rows, columns = max(1, round(height / scale)), max(1, round(width / scale))
        cut = self._read_labelled(generator, rows, columns)
        # A piece of a smaller image keeps its scale and leaves the rest of the crop empty.
        shown_rows = max(1, round(height * cut.label.shape[0] / rows))
        shown_columns = max(1, round(width * cut.label.shape[1] / columns))
        return resample(cut, shown_rows, shown_columns).padded(height, width)

    def _read_labelled(self, generator: np.random.Generator, rows: int, columns: int) -> Cut:
        for attempt in range(TRIES):
            number, window = self.places.draw(generator, rows, columns)
            ids = self.reader.read_ids(number, window)
            if attempt < TRIES - 1 and (ids == NODATA_ID).all():
                continue
            cut = self.reader.read_behind(number, window, ids)
            if cut.is_labelled:
                break
        return cut


class ValidationTiles(Dataset[Sample]):
    """Tiles that cover every pixel of the images once; a pixel is counted in one tile only."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        tile = reader.tile
        self._places = [
            (number, row, column)
            for number, (height, width) in enumerate(reader.sizes)
            for row in range(0, height, tile)
            for column in range(0, width, tile)
        ]

    @property
    def image_numbers(self) -> tuple[int, ...]:
        """The number of the image that each tile is of; the images are those of the reader."""
        return tuple(number for number, _, _ in self._places)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """Return a tile; where it was moved to fit in the image, pixels of others are ignored.

        Number -1 gives one whose pixels are all ignored.
        """
        number, row, column = self._places[index]
        height, width = self.reader.sizes[number]
        tile = self.reader.tile
        window = Window(
            max(0, min(row, height - tile)),
            max(0, min(column, width - tile)),
            min(tile, height),
            min(tile, width),
        )
        image, label, _ = self.reader.read(number, window)
        label[: row - window.row] = NODATA_ID
        label[:, : column - window.column] = NODATA_ID
        if index == NO_TILE:
            label[:] = NODATA_ID
        return _sample(image, label, index)


def seed_worker(worker: int) -> None:
    """Keep a loading process to one thread and little memory; its siblings need the rest."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    limit_cache(WORKER_CACHE)


def _sample(image: NDArray[np.float32], label: NDArray[np.uint8], index: int) -> Sample:
    return torch.from_numpy(image), torch.from_numpy(label.astype(np.int64)), index
