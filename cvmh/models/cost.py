"""What a network costs: its parameters, its multiply-adds, and its scans."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvmh.models.mfms import MultiFrequencyBranch
from cvmh.models.ss2d import SS2D

NORMS = (nn.BatchNorm2d, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one forward pass of one image.

    ``macs`` counts the multiply-adds of convolutions, Linear layers, norms and average poolings, as
    the counters of most papers do. ``leaf_parameters`` counts what those counters see: they miss
    the raw tensors of SSMs (x_proj, dt, A, D). ``scan_flops`` is 9 L D N per scan direction.
    """

    parameters: int
    leaf_parameters: int
    macs: int
    scan_flops: int


def count_cost(network: nn.Module, *, height: int, width: int, bands: int) -> Cost:
    """Count the cost of a network by running it once on zeros (1, bands, height, width)."""
    counts = {"macs": 0, "scan": 0}

    def on_leaf(module: nn.Module, inputs: Any, output: Any) -> None:
        counts["macs"] += _macs(module, inputs, output)

    def on_scan(module: SS2D, inputs: tuple[Tensor], output: Tensor) -> None:
        tokens = inputs[0].shape[1] * inputs[0].shape[2]
        counts["scan"] += 9 * tokens * module.A_log.numel()

    def on_frequencies(module: MultiFrequencyBranch, inputs: tuple[Tensor], output: Tensor) -> None:
        # The K poolings under the bases are functions here, modules in the counted originals.
        counts["macs"] += module.num_frequencies * inputs[0].numel()

    leaves = [module for module in network.modules() if not list(module.children())]
    handles: list[Any] = [leaf.register_forward_hook(on_leaf) for leaf in leaves]
    for module in network.modules():
        if isinstance(module, SS2D):
            handles.append(module.register_forward_hook(on_scan))
        if isinstance(module, MultiFrequencyBranch):
            handles.append(module.register_forward_hook(on_frequencies))
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, bands, height, width))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        leaf_parameters=sum(p.numel() for leaf in leaves for p in leaf.parameters()),
        macs=counts["macs"],
        scan_flops=counts["scan"],
    )


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, NORMS):
        # Subtract, divide, scale, shift.
        return 4 * inputs[0].numel()
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return inputs[0].numel() + output.numel()
    return 0
