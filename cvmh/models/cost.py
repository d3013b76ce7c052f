"""What a network costs: its parameters, its multiply-adds, and its scans.

B batch, L pixels, D channels, K paths, N states, R rank of dt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Defines the operators of scans.
import cvmh.ops  # noqa: F401
from cvmh.models.cvss import ChannelAttention
from cvmh.models.mfms import MultiFrequencyBranch, MultiScaleBranch
from cvmh.models.resize import PatchExpanding

CountMacs = Callable[[Any, tuple[Tensor, ...], Tensor], int]
NORMS = (nn.BatchNorm2d, nn.LayerNorm)
# What a scan of tensors without values runs.
SCAN = torch.ops.cvmh.selective_scan_numba_fwd
LAYER_NORM = torch.ops.aten.native_layer_norm.default
# Which of its arguments are the weights that expand dt.
DT_WEIGHT = [argument.name for argument in SCAN.default._schema.arguments].index("dt_weight")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one forward pass of one image.

    ``flops`` is the whole count by VMamba's convention: each multiply-add of a convolution or
    matrix product as one, wherever it stands, and the scans. ``scan_flops`` is the scans' share:
    9 L D N for each path, and L D for the skip.

    ``macs`` and ``leaf_parameters`` are what the counters of many papers see, CVMH-UNet's too:
    multiply-adds of modules for convolutions, Linear layers, norms and average poolings. They miss
    the raw tensors of SSMs (x_proj, dt, A, D) and products outside of modules.
    """

    parameters: int
    leaf_parameters: int
    macs: int
    scan_flops: int
    flops: int


def count_cost(network: nn.Module, *, height: int, width: int, bands: int) -> Cost:
    """Count the cost of a network for an image (1, bands, height, width).

    Nothing is computed: operators are counted on tensors that have shapes but no values. A network
    that was made under ``torch.device("meta")`` will do.
    """
    leaves = [module for module in network.modules() if not list(module.children())]
    watched: dict[nn.Module, CountMacs] = dict.fromkeys(leaves, _leaf_macs)
    watched |= {m: _pooling_macs for m in network.modules() if isinstance(m, MultiFrequencyBranch)}
    watched |= {m: _expanding_macs for m in network.modules() if isinstance(m, PatchExpanding)}
    averaging = (ChannelAttention, MultiScaleBranch)
    watched |= {m: _averaging_macs for m in network.modules() if isinstance(m, averaging)}
    macs = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal macs
        macs += watched[module](module, inputs, output)

    handles = [module.register_forward_hook(count) for module in watched]
    counter, was_training = OperatorCounter(), network.training
    try:
        with torch.no_grad(), counter:
            _run_without_values(network.eval(), (1, bands, height, width))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        leaf_parameters=sum(p.numel() for leaf in leaves for p in leaf.parameters()),
        macs=macs,
        scan_flops=counter.scan_flops,
        flops=counter.macs + counter.scan_flops,
    )


def _run_without_values(network: nn.Module, shape: tuple[int, ...]) -> None:
    tensors = (*network.named_parameters(), *network.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    functional_call(network, shapes, (torch.zeros(shape, device="meta"),))


class OperatorCounter(TorchDispatchMode):
    """Adds up the multiply-adds of all operators that run, and what scans cost besides."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.scan_flops = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        if function is LAYER_NORM:
            # Torch finds the shapes by a dozen operators in Python: a third of all the time.
            x = args[0]
            return torch.empty_like(x), x.new_empty(()), x.new_empty(())
        result = function(*args, **kwargs)
        operator = function.overloadpacket
        if operator is SCAN:
            self._count_scan(args)
        elif operator in flop_registry:
            # Torch counts a multiply-add as two.
            self.macs += flop_registry[operator](*args, **kwargs, out_val=result) // 2
        return result

    def _count_scan(self, args: Any) -> None:
        x, dt, A, _, _, D, *_ = args
        num_paths, channels, num_states = A.shape
        tokens = x.shape[0] * x.shape[1]
        self.scan_flops += num_paths * tokens * channels * (9 * num_states + (D is not None))
        weight = args[DT_WEIGHT]
        if weight is not None:
            # The scan expands a low-rank dt itself. Weights that all paths share count once, as in
            # networks that expand dt before they scan.
            num_sets = num_paths if weight.stride(0) else 1
            self.macs += num_sets * tokens * dt.shape[-1] * channels


def _leaf_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, NORMS):
        return _norm_macs(inputs[0].numel())
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return inputs[0].numel() + output.numel()
    return 0


def _pooling_macs(module: MultiFrequencyBranch, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    # The K poolings under the bases are functions here, modules in the counted originals.
    return module.num_frequencies * inputs[0].numel()


def _expanding_macs(module: PatchExpanding, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    # And the norm of the pixels that come of each pixel.
    return _norm_macs(inputs[0].numel() // module.expand.in_features * module.expand.out_features)


def _norm_macs(num_values: int) -> int:
    # Subtract, divide, scale, shift.
    return 4 * num_values


def _averaging_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    # So is the average over a map, which may be one of kept cells only.
    tiles, channels = inputs[0].shape[:2]
    return inputs[0].numel() + tiles * channels
