"""From settings to loaders: what a run trains and validates on."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from cvmh.config import DataSettings, RunConfig
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.crops import TrainingCrops, ValidationTiles, seed_worker
from cvmh.datasets.labelled import SegmentationData
from cvmh.datasets.opening import check_splits
from cvmh.datasets.places import BalancedPlaces
from cvmh.datasets.prepare import estimate_gain
from cvmh.datasets.reader import Reader
from cvmh.datasets.reading import ImageBands
from cvmh.datasets.samplers import EpochSampler, TileSampler
from cvmh.datasets.summary import DataSummary, summarise, survey
from cvmh.errors import ConfigError, DataError
from cvmh.progress import Progress, silent

logger = logging.getLogger("cvmh")

MIN_BATCHES = 16
# Where a crop decodes so many times more than it had to, a training is told.
WASTE = 10.0
MAX_WORKERS = 4
# Where a network keeps so few cores busy, a process that only reads takes more than it gives.
FEW_CORES = 2


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Loaders of training crops and validation tiles, and the summary that scaled them."""

    summary: DataSummary
    train_loader: DataLoader[Any]
    # None where the settings name no validation split.
    val_loader: DataLoader[Any] | None

    def share(self, *, num_replicas: int, rank: int) -> None:
        """Give the loaders what process ``rank`` of ``num_replicas`` takes of each step."""
        for loader in (self.train_loader, self.val_loader):
            if loader is not None:
                loader.sampler.share(num_replicas=num_replicas, rank=rank)  # type: ignore[attr-defined]


def prepare_training(
    data: SegmentationData, config: RunConfig, *, progress: Progress = silent
) -> TrainingData:
    """Summarise the training split and build the loaders of a run.

    Raises:
        ConfigError: an epoch has fewer crops than a batch, or the splits must not be used so.
        DataError: a split is empty, or images and labels do not fit together.
        RasterError: a file cannot be read.
    """
    settings = config.data
    check_splits(settings, data)
    # Of all processes together.
    step = settings.batch * config.train.devices * config.train.nodes
    if settings.crops_per_epoch is not None and settings.crops_per_epoch < step:
        processes = "" if step == settings.batch else " times the number of processes"
        raise ConfigError(
            f"data.crops_per_epoch must be at least data.batch{processes}, {step}, "
            f"got {settings.crops_per_epoch}"
        )
    found = survey(data, settings.train_split, bands=settings.bands, progress=progress)
    summary = found.summary
    _check_labelled(data, settings.train_split, summary)
    if settings.val_split is not None:
        # For its checks: a wrong label should be found now, not after the first epoch.
        seen = summarise(data, settings.val_split, bands=settings.bands, progress=progress)
        _check_labelled(data, settings.val_split, seen)
    _hint_at_preparing(data, settings.tile)
    train_reader = make_reader(data, settings.train_split, summary, tile=settings.tile)
    val_loader: DataLoader[Any] | None = None
    crops = settings.crops_per_epoch or _crops_per_epoch(train_reader, settings, step=step)
    workers = _default_workers(config) if settings.workers is None else settings.workers
    common: dict[str, Any] = {
        "batch_size": settings.batch,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": seed_worker,
    }
    if settings.val_split is not None:
        val_reader = make_reader(data, settings.val_split, summary, tile=settings.tile)
        tiles = ValidationTiles(val_reader)
        sampler = TileSampler(len(tiles), batch=settings.batch)
        val_loader = DataLoader(tiles, sampler=sampler, **common)
    balanced = BalancedPlaces(train_reader, found.index, settings.balance)
    train_crops = TrainingCrops(
        train_reader,
        Augmentation(config.augment),
        seed=config.train.seed,
        places=balanced if settings.balance else None,
    )
    return TrainingData(
        summary=summary,
        train_loader=DataLoader(
            train_crops,
            sampler=EpochSampler(crops, batch=settings.batch),
            drop_last=True,
            **common,
        ),
        val_loader=val_loader,
    )


def make_reader(
    data: SegmentationData, split: str | Sequence[str], summary: DataSummary, *, tile: int
) -> Reader:
    """Build the reader of a split, or of several, that scales its images by a summary."""
    return Reader(
        data.of_split(split),
        data.encoding,
        ImageBands(summary.bands, summary.alpha, summary.band_names, summary.dtype),
        mean=summary.mean,
        std=summary.std,
        tile=tile,
    )


def _crops_per_epoch(reader: Reader, settings: DataSettings, *, step: int) -> int:
    pixels = sum(height * width for height, width in reader.sizes)
    return max(MIN_BATCHES, round(pixels / settings.tile**2 / step)) * step


def _check_labelled(
    data: SegmentationData, split: str | Sequence[str], summary: DataSummary
) -> None:
    if not any(summary.class_pixels):
        images = data.of_split(split)
        name = split if isinstance(split, str) else ", ".join(split)
        raise DataError(
            f"split '{name}' must have labelled pixels, but in all of its {len(images)} labels "
            f"({images[0].label} is the first) they are ignored or where the image has no data; "
            "'cvmh data doctor' says what the labels hold"
        )


def _hint_at_preparing(data: SegmentationData, tile: int) -> None:
    gain = estimate_gain(data, crop=tile)
    if gain.factor >= WASTE:
        logger.warning(
            "to read a crop of %s, %.0f times as many pixels are decoded, because its files are "
            "not tiled; 'cvmh data prepare' would make that %.0f times less",
            data.name,
            gain.now,
            gain.factor,
        )


def _default_workers(config: RunConfig) -> int:
    cores = (os.cpu_count() or 1) // config.train.devices
    if cores <= FEW_CORES and not torch.cuda.is_available():
        return 0
    return min(MAX_WORKERS, max(1, cores - 1))
