"""Whether a network can leave cells out."""

from inspect import signature

from torch import nn


def can_prune(network: nn.Module) -> bool:
    """Return whether a network computes only what a grid keeps."""
    return obstacle(network) is None


def obstacle(network: nn.Module) -> str | None:
    """Return why a network cannot leave cells out, None if it can.

    Its ``forward`` must take a grid. Maps that are resized to a fixed size, as CVMH-UNet's are with
    ``dct_size="fixed"``, have no cells.
    """
    if "grid" not in signature(type(network).forward).parameters:
        return "networks of its kind compute whole tiles"
    is_fixed = getattr(getattr(network, "settings", None), "dct_size", None) == "fixed"
    return 'its setting dct_size is "fixed"' if is_fixed else None
