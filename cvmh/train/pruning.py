"""Training a network to leave out cells: what is left out of each batch, and who teaches.

B batch, C classes, H W size, G cells along a side.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.classes import NODATA_ID
from cvmh.config import PruningRunSettings, RunConfig
from cvmh.errors import ConfigError
from cvmh.models.pruning import CELL, WHOLE, CellGrid, Grid, MaskedGrid
from cvmh.models.pruning.learned import Trace
from cvmh.models.zoo import PRESETS, find_preset
from cvmh.train.distill import has_data

# Of a crop that loses data, the shares of the cells that do, at least and at most.
LOST = (0.1, 0.9)


class Pruning:
    """Runs a network on batches of which cells are left out, drawn by the number of the batch.

    Args:
        settings: how many cells are left out.
        seed: of the run; a batch of the same number gets the same draws.
    """

    def __init__(self, settings: PruningRunSettings, *, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def empty(
        self, images: Tensor, labels: Tensor, *, number: tuple[int, int], rank: int
    ) -> tuple[Tensor, Tensor]:
        """Take the data out of some cells of some crops: images are 0 there, labels 255.

        Cells go by their distance along a drawn direction and by chance, in drawn proportions, so
        that some crops look like the edge of a scene and some have holes.
        """
        draw = np.random.default_rng((self.seed, 1, *number, rank))
        rows, columns = (-(-side // CELL) for side in images.shape[-2:])
        is_lost = torch.zeros(len(images), rows, columns, dtype=torch.bool)
        for index in np.flatnonzero(draw.random(len(images)) < self.settings.nodata):
            angle, mix, share = draw.uniform(0, 2 * np.pi), draw.random(), draw.uniform(*LOST)
            row, column = np.mgrid[:rows, :columns] / max(rows, columns)
            along = np.cos(angle) * row + np.sin(angle) * column
            height = (1 - mix) * along + mix * draw.random((rows, columns))
            is_lost[index] = torch.from_numpy(height <= np.quantile(height, share))
        if not is_lost.any():
            return images, labels
        pixels = is_lost.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
        pixels = pixels[:, : images.shape[-2], : images.shape[-1]].to(images.device)
        return images.masked_fill(pixels[:, None], 0), labels.masked_fill(pixels, NODATA_ID)

    def train(
        self, network: nn.Module, images: Tensor, *, number: tuple[int, int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, C, H, W) with a drawn share of cells, and those of auxiliary heads."""
        draw = np.random.default_rng((self.seed, 0, *number))
        heard: list[Tensor] = []
        active = cells_with_data(images)
        grid: Grid = WHOLE if active.all() else MaskedGrid(active)
        keep = float(draw.uniform(*self.settings.keep))
        logits = network(images, grid, keep, Trace(answers=heard))
        height, width = images.shape[-2:]
        return logits, [answers[..., :height, :width] for answers in heard]

    def validate(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) with the share of cells that the run is judged by."""
        active = cells_with_data(images)
        grid = WHOLE if active.all() else CellGrid(active)
        logits: Tensor = network(images, grid, self.settings.validate_keep)
        return logits


def cells_with_data(images: Tensor) -> Tensor:
    """Return which cells of images (B, bands, H, W) have a pixel of data: (B, G, G)."""
    found = has_data(images)[:, None].float()
    return functional.max_pool2d(found, CELL, ceil_mode=True)[:, 0] > 0


def settle_teacher(config: RunConfig) -> RunConfig:
    """Return the settings in which the bundle that pruning starts from teaches, by its scores.

    Nothing changes where another teacher is named, or none is wanted.
    """
    pruning, distill, init = config.pruning, config.train.distill, config.model.init
    if pruning is None or not pruning.distill or distill.teacher is not None or init is None:
        return config
    kind = {} if "kind" in distill.model_fields_set else {"kind": "soft"}
    distill = distill.model_copy(update={"teacher": init, **kind})
    train = config.train.model_copy(update={"distill": distill})
    return config.model_copy(update={"train": train})


def check_pruning(config: RunConfig) -> None:
    """Refuse a run that is to prune and cannot.

    Raises:
        ConfigError: the network has no cells to leave out, or processes would have to share what
            belongs to the cells of each.
    """
    if config.pruning is None:
        return
    name, train = config.model.name, config.train
    if not find_preset(name).prunes:
        able = ", ".join(name for name, preset in PRESETS.items() if preset.prunes)
        raise ConfigError(
            f"pruning: network '{name}' cannot choose cells; use one of {able}, or leave pruning "
            "out"
        )
    if train.strategy == "fsdp":
        raise ConfigError("pruning needs whole weights in each process; use train.strategy=ddp")
    if train.devices * train.nodes > 1 and train.sync_batchnorm:
        raise ConfigError(
            "pruning takes the statistics of batch norms over the cells that each process keeps; "
            "set train.sync_batchnorm=false"
        )


def describe(settings: PruningRunSettings) -> str:
    """Return a line for the user."""
    low, high = settings.keep
    return (
        f"pruning: {low:g} to {high:g} of the cells are kept, by {settings.score}, the others are "
        f"{settings.reinsert}; validated at {settings.validate_keep:g}"
    )
