"""What a prediction leaves out of a tile, by the value of ``--prune``."""

import logging
from dataclasses import dataclass

from torch import nn

from cvmh.errors import BundleError
from cvmh.models.bundle import Bundle
from cvmh.models.pruning.ability import obstacle
from cvmh.models.pruning.scores import Keep, Threshold

logger = logging.getLogger("cvmh")

# Networks that choose a larger share of a tile's cells than that run dense, which takes less time:
# docs/benchmarks.md, "Token pruning".
CHOSEN_DENSE_ABOVE = 0.8


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a threshold changes on a sample of the scene; with too much change it is not taken.

    ``changed_share`` is that of the pixels with data whose class is another than that of the dense
    network, ``kept_share`` that of the cells that are computed, ``data_share`` that of those that
    would be if only cells without data were left out. ``seconds`` is what the whole search took.
    """

    tiles: int
    kept_share: float
    data_share: float
    changed_share: float
    allowed_share: float
    seconds: float = 0.0

    @property
    def is_allowed(self) -> bool:
        """Whether little enough changes."""
        return self.changed_share <= self.allowed_share

    def __str__(self) -> str:
        """Say what changes."""
        limit = "" if self.is_allowed else f", where {self.allowed_share:.0%} may"
        return (
            f"{self.changed_share:.2%} of the pixels of a sample of {self.tiles} tiles change "
            f"against the dense network{limit}"
        )


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What is left out of a tile: cells without data, and of the others what is not kept.

    With "auto" it comes with the sample on which a threshold was looked for.
    """

    without_data: bool = False
    keep: Keep | None = None
    sample: Sample | None = None

    @property
    def share(self) -> float:
        """The share of the cells with data that is kept, or that is expected to be."""
        if isinstance(self.keep, Threshold):
            return 1.0 if self.sample is None else self.sample.kept_share / self.sample.data_share
        return 1.0 if self.keep is None else self.keep

    def __str__(self) -> str:
        """Name it as ``--prune`` does."""
        if isinstance(self.keep, Threshold):
            return f"auto, from score {self.keep.score:g}"
        if self.keep is not None:
            return f"{self.keep:g}"
        return "nodata" if self.without_data else "off"


OFF = Pruning()


def choose_pruning(bundle: Bundle, prune: str | float) -> Pruning:
    """Return what ``--prune`` means for a bundle's network; "nodata" is dense where it cannot.

    "auto" is "nodata" until a sample has been looked at.

    Raises:
        BundleError: the network is to choose cells, but cannot prune, or was not trained to.
    """
    if prune == "off":
        return OFF
    reason = obstacle(bundle.network)
    if prune == "nodata":
        return Pruning(without_data=reason is None)
    if reason is not None:
        raise BundleError(
            f"network '{bundle.card.model}' cannot prune tokens, since {reason}, but "
            f"--prune {prune} was asked for; use --prune off"
        )
    if not is_trained_to_prune(bundle.network):
        raise BundleError(
            f"the bundle must be trained to prune for --prune {prune}, but its network "
            f"'{bundle.card.model}' has no settings 'pruning'; fine-tune it with cvmh train "
            "--init BUNDLE --set pruning={} on its data set, or use --prune nodata"
        )
    if prune == "auto":
        return Pruning(without_data=True)
    if float(prune) > CHOSEN_DENSE_ABOVE:
        logger.info(
            "--prune %s: with more than %g of its cells a tile takes less time dense, so that only "
            "cells without data are left out",
            *(prune, CHOSEN_DENSE_ABOVE),
        )
        return Pruning(without_data=True)
    return Pruning(without_data=True, keep=float(prune))


def is_trained_to_prune(network: nn.Module) -> bool:
    """Return whether a network was trained to choose the cells that it keeps."""
    return getattr(getattr(network, "settings", None), "pruning", None) is not None
