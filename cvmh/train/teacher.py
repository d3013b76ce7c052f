"""The teacher of a run: a bundle's network, shown a run's images as it knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.classes import ClassTable
from cvmh.config import DistillSettings, RunConfig
from cvmh.datasets import DataSummary, SegmentationData, TrainingData
from cvmh.errors import ConfigError
from cvmh.files import digest
from cvmh.geo.bands import match_names
from cvmh.models.bundle import Bundle, BundleCard, load_bundle
from cvmh.train.distill import has_data

# Networks halve their maps five times.
SIZE_STEP = 32


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that teaches, what the record of the run says of it, and a line for the user."""

    network: nn.Module
    facts: dict[str, Any]
    told: str


class BundleTeacher(nn.Module):
    """Show a run's images to a bundle's network, and give its answers in the run's classes.

    A sample that the run scales to ``x = (v - m) / s`` reaches the network as the bundle scales
    it, ``(v - m') / s' = x s / s' + (m - m') / s'``; pixels without data are 0 in both.

    Args:
        network: the bundle's network.
        bands: for each of its bands, the run's.
        scale: ``s / s'`` of each of its bands.
        shift: ``(m - m') / s'`` of each.
        classes: for each class of the run, the network's.
        zoom: how many of the network's pixels a pixel of the run is wide.
    """

    bands: Tensor
    scale: Tensor
    shift: Tensor
    classes: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        bands: Sequence[int],
        scale: Sequence[float],
        shift: Sequence[float],
        classes: Sequence[int],
        zoom: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.zoom = zoom
        self.register_buffer("bands", torch.tensor(bands))
        self.register_buffer("scale", torch.tensor(scale)[:, None, None])
        self.register_buffer("shift", torch.tensor(shift)[:, None, None])
        self.register_buffer("classes", torch.tensor(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map images of the run (B, bands, H, W) to logits of its classes (B, classes, H, W)."""
        shown = images[:, self.bands] * self.scale + self.shift
        shown = shown * has_data(images)[:, None]
        size = images.shape[-2:]
        if self.zoom != 1:
            shown = _resized(shown, [_whole(side * self.zoom) for side in size])
        logits: Tensor = self.network(shown)[:, self.classes]
        return logits if logits.shape[-2:] == size else _resized(logits.float(), list(size))


def make_teacher(
    config: RunConfig, data: SegmentationData, training: TrainingData, *, begun_with: str | None
) -> Teacher | None:
    """Return the teacher that the settings name, fitted to a run's bands, scaling and classes.

    Args:
        config: ``train.distill`` names the bundle.
        data: its classes are those of the run.
        training: its bands and statistics are those of the run.
        begun_with: the fingerprint of the teacher of a run that goes on, None if it begins.

    Raises:
        BundleError: the file is not a bundle.
        ConfigError: the bundle cannot teach this run, or is not that which the run began with.
    """
    settings = config.train.distill
    if settings.teacher is None:
        if settings != DistillSettings():
            raise ConfigError(
                "train.distill needs a teacher; set train.distill.teacher to a bundle, or leave "
                "its other keys out"
            )
        return None
    bundle = load_bundle(settings.teacher)
    mark = digest(settings.teacher)
    if begun_with not in (None, mark):
        raise ConfigError(
            f"train.distill.teacher: {settings.teacher} is not the bundle that the run began with "
            "(its fingerprint is another); put that one back, or begin a new run"
        )
    network = fit_teacher(bundle, training.summary, data.classes)
    resampled = f", images resampled by {network.zoom:.3g}" if network.zoom != 1 else ""
    return Teacher(
        network=network,
        facts={
            "teacher": {
                "bundle": str(settings.teacher),
                "sha256": mark,
                "model": bundle.card.model,
                "zoom": network.zoom,
            }
        },
        told=f"teacher {settings.teacher}: {bundle.card.model}, {settings.kind} labels of weight "
        f"{settings.weight:g}{resampled}",
    )


def fit_teacher(bundle: Bundle, summary: DataSummary, classes: ClassTable) -> BundleTeacher:
    """Return a bundle's network as a teacher for data with such bands, statistics and classes.

    Raises:
        ConfigError: the data lacks a band of the bundle, has another dtype, or other classes.
    """
    card = bundle.card
    bands = _match_bands(bundle, summary)
    mean, std = ([values[band] for band in bands] for values in (summary.mean, summary.std))
    return BundleTeacher(
        bundle.network,
        bands=bands,
        scale=[ours / theirs for ours, theirs in zip(std, card.std, strict=True)],
        shift=[
            (ours - theirs) / deviation
            for ours, theirs, deviation in zip(mean, card.mean, card.std, strict=True)
        ],
        classes=_match_classes(bundle, classes),
        zoom=_zoom(card, summary),
    ).eval()


def _match_bands(bundle: Bundle, summary: DataSummary) -> list[int]:
    card = bundle.card
    if card.dtype != summary.dtype:
        raise ConfigError(
            f"train.distill.teacher: bundle {bundle.path} was trained on {card.dtype} and the "
            f"run's images are {summary.dtype}, so that their values do not mean the same; give a "
            f"teacher for {summary.dtype}"
        )
    places = match_names(card.band_names, summary.band_names)
    missing = [n for n, place in zip(card.band_names, places, strict=True) if place is None]
    if missing:
        raise ConfigError(
            f"train.distill.teacher: bundle {bundle.path} needs the bands "
            f"{', '.join(card.band_names)}, and the run has {', '.join(summary.band_names)}; "
            f"missing: {', '.join(missing)}"
        )
    return [place for place in places if place is not None]


def _match_classes(bundle: Bundle, classes: ClassTable) -> list[int]:
    known = bundle.card.classes.names
    if set(known) != set(classes.names):
        raise ConfigError(
            f"train.distill.teacher: bundle {bundle.path} knows the classes {', '.join(known)}, "
            f"and the run has {', '.join(classes.names)}; a teacher must know the same names, in "
            "any order, so name another or none (pruning.distill=false where --init brought it)"
        )
    return [known.index(name) for name in classes.names]


def _zoom(card: BundleCard, summary: DataSummary) -> float:
    # Images are resampled for a teacher as scenes are for a bundle that predicts them.
    if card.gsd is None or summary.gsd is None or not card.is_far_from(summary.gsd):
        return 1.0
    return summary.gsd / card.gsd


def _whole(side: float) -> int:
    return max(1, round(side / SIZE_STEP)) * SIZE_STEP


def _resized(maps: Tensor, size: list[int]) -> Tensor:
    return functional.interpolate(
        maps, size=size, mode="bilinear", align_corners=False, antialias=True
    )
