"""Networks for prediction alone: fewer operators, the same values."""

import copy
from itertools import chain, pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cvmh.models.layers import PointwiseConv

# Others may do more than their class says.
CONVOLUTIONS = (nn.Conv2d, PointwiseConv)


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a network whose convolutions do what the batch norms right behind them did.

    Values change by rounding. Looks at plain layers in rows (:class:`torch.nn.Sequential`), in
    evaluation mode and without hooks, and passes by all others. The network that was given stays
    as it is: its modules are copied, their weights, but for those that are folded, shared. It is
    itself returned if there is nothing to fold.

    Args:
        network: in evaluation mode.
    """
    if not any(map(_foldable, network.modules())):
        return network
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    folded = copy.deepcopy(network, dict(shared))
    for row in folded.modules():
        for (conv_name, conv), (norm_name, norm) in _foldable(row):
            setattr(row, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(row, norm_name, nn.Identity())
    return folded


Pair = tuple[tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]


def _foldable(row: nn.Module) -> list[Pair]:
    """Return the convolutions and batch norms of a row that follow one another, and their names."""
    if type(row).forward is not nn.Sequential.forward:
        return []
    # Not by named_children, which passes by a layer that comes again.
    return [
        ((conv_name, conv), (norm_name, norm))
        for (conv_name, conv), (norm_name, norm) in pairwise(row._modules.items())
        if isinstance(conv, nn.Conv2d) and type(conv) in CONVOLUTIONS and _is_plain(conv)
        if isinstance(norm, nn.BatchNorm2d) and type(norm) is nn.BatchNorm2d and _is_plain(norm)
        if norm.running_mean is not None
    ]


def _is_plain(layer: nn.Module) -> bool:
    return not (layer.training or layer._forward_hooks or layer._forward_pre_hooks)
