"""Samples for a network: random crops to train on, whole tiles to validate on.

A sample is (image (bands, tile, tile) float32, label (tile, tile) int64, index). Every random
choice is drawn from (seed, epoch, index), so batches do not depend on the number of workers and
a resumed run draws what an uninterrupted one would have drawn.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cvmh.classes import NODATA_ID
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.labelled import LabelEncoding, LabelledImage
from cvmh.datasets.reading import (
    ImageBands,
    check_bands,
    check_label,
    read_image,
    read_label,
)
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

Sample = tuple[Tensor, Tensor, int]
# A crop without any labelled pixel teaches nothing; so many places are tried.
TRIES = 10


class Reader:
    """Reads windows of labelled images, normalised and padded to whole tiles."""

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

    def read(
        self, number: int, window: Window
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
        """Return image (bands, tile, tile), label and validity (tile, tile) of a window.

        The image is 0 and the label 255 where there is no data and beyond the window.
        """
        entry = self.images[number]
        with Raster(entry.image) as raster, Raster(entry.label) as label:
            values, valid = read_image(raster, self.bands, window)
            ids = read_label(label, self.encoding, window)
        scaled = np.nan_to_num((values - self.mean) / self.std, copy=False, nan=0.0)
        extent = (slice(0, window.height), slice(0, window.width))
        image = np.zeros((len(values), self.tile, self.tile), dtype=np.float32)
        image[:, *extent] = scaled
        labels = np.full((self.tile, self.tile), NODATA_ID, dtype=np.uint8)
        labels[extent] = np.where(valid, ids, NODATA_ID)
        validity = np.zeros((self.tile, self.tile), dtype=bool)
        validity[extent] = valid
        return image, labels, validity


class TrainingCrops(Dataset[Sample]):
    """Random crops; an image is chosen in proportion to its area."""

    def __init__(self, reader: Reader, augmentation: Augmentation, *, seed: int) -> None:
        self.reader = reader
        self.augmentation = augmentation
        self.seed = seed
        areas = np.array([height * width for height, width in reader.sizes], dtype=np.float64)
        self._odds = areas / areas.sum()

    def __getitem__(self, index: int) -> Sample:
        """Return crop number ``index``, counted over all epochs."""
        generator = np.random.default_rng([self.seed, index])
        for _ in range(TRIES):
            number = int(generator.choice(len(self._odds), p=self._odds))
            window = self._random_window(generator, *self.reader.sizes[number])
            image, label, validity = self.reader.read(number, window)
            if (label != NODATA_ID).any():
                break
        seed = int(generator.integers(2**31))
        image, label = self.augmentation(image, label, validity, seed=seed)
        return _sample(image, label, index)

    def _random_window(self, generator: np.random.Generator, height: int, width: int) -> Window:
        rows, columns = min(height, self.reader.tile), min(width, self.reader.tile)
        row = int(generator.integers(height - rows + 1))
        column = int(generator.integers(width - columns + 1))
        return Window(row, column, rows, columns)


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

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """Return a tile; where it was moved to fit in the image, pixels of others are ignored."""
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
        return _sample(image, label, index)


class EpochSampler(Sampler[int]):
    """Gives every crop of a run its own number, so that each epoch draws new crops.

    Several processes share the crops of a step: what all of them get in a step is what one
    process with so many times the batch gets, whatever the epoch and wherever a run resumes.

    Args:
        crops_per_epoch: crops of an epoch of all processes together; what does not fill a step
            of theirs is left out.
        batch: crops of one process in one step.
    """

    def __init__(self, crops_per_epoch: int, *, batch: int = 1) -> None:
        self.crops_per_epoch = crops_per_epoch
        self.batch = batch
        self.epoch = 0
        self.num_replicas = 1
        self.rank = 0

    def set_epoch(self, epoch: int) -> None:
        """Take up the numbering at an epoch; Lightning calls this."""
        self.epoch = epoch

    def share(self, *, num_replicas: int, rank: int) -> None:
        """Give only the crops of process ``rank`` of ``num_replicas``."""
        self.num_replicas, self.rank = num_replicas, rank

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of this process's crops of the epoch, step after step."""
        start = self.epoch * self.crops_per_epoch + self.rank * self.batch
        stride = self.batch * self.num_replicas
        for step in range(len(self) // self.batch):
            first = start + step * stride
            yield from range(first, first + self.batch)

    def __len__(self) -> int:
        """Return the number of this process's crops of an epoch."""
        return self.crops_per_epoch // (self.batch * self.num_replicas) * self.batch


def seed_worker(worker: int) -> None:
    """Keep a loading process to one thread: its siblings and the network need the others."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _sample(image: NDArray[np.float32], label: NDArray[np.uint8], index: int) -> Sample:
    return torch.from_numpy(image), torch.from_numpy(label.astype(np.int64)), index


def _checked_size(
    entry: LabelledImage, chosen: ImageBands, encoding: LabelEncoding
) -> tuple[int, int]:
    with Raster(entry.image) as raster, Raster(entry.label) as label:
        check_bands(raster, chosen)
        check_label(label, raster, encoding)
        return raster.height, raster.width
