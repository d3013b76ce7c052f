"""What a prediction leaves out of a tile, by the value of ``--prune``."""

from dataclasses import dataclass

from torch import nn

from cvmh.errors import BundleError
from cvmh.models.bundle import Bundle
from cvmh.models.pruning import can_prune


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What is left out of a tile: cells without data, and all but a share of the others."""

    without_data: bool = False
    keep: float | None = None

    def __str__(self) -> str:
        """Name it as ``--prune`` does."""
        if self.keep is not None:
            return f"{self.keep:g}"
        return "nodata" if self.without_data else "off"


OFF = Pruning()


def choose_pruning(bundle: Bundle, prune: str | float) -> Pruning:
    """Return what ``--prune`` means for a bundle's network; "nodata" is dense where it cannot.

    Raises:
        BundleError: a share of the cells is asked of a network that cannot prune, or that was not
            trained to.
    """
    if prune == "off":
        return OFF
    is_able = can_prune(bundle.network)
    if prune == "nodata":
        return Pruning(without_data=is_able)
    if not is_able:
        raise BundleError(
            f"network '{bundle.card.model}' cannot prune tokens, but --prune {prune} was asked "
            "for; use --prune off"
        )
    if not is_trained_to_prune(bundle.network):
        raise BundleError(
            f"the bundle must be trained to prune for --prune {prune}, but its network "
            f"'{bundle.card.model}' has no settings 'pruning'; fine-tune it with cvmh train "
            "--init BUNDLE --set pruning.keep=[0.4,1.0], or use --prune nodata"
        )
    return Pruning(without_data=True, keep=float(prune))


def is_trained_to_prune(network: nn.Module) -> bool:
    """Return whether a network was trained to choose the cells that it keeps."""
    return getattr(getattr(network, "settings", None), "pruning", None) is not None
