"""Whether a network can leave cells out."""

from inspect import signature

from torch import nn


def can_prune(network: nn.Module) -> bool:
    """Return whether a network computes only what a grid keeps.

    Its ``forward`` must take a grid. Maps that are resized to a fixed size, as CVMH-UNet's are with
    ``dct_size="fixed"``, have no cells.
    """
    has_cells = getattr(getattr(network, "settings", None), "dct_size", None) != "fixed"
    return has_cells and "grid" in signature(type(network).forward).parameters
