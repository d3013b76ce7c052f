"""AdamW over groups of parameters: what decays, and how fast each stage of an encoder learns."""

import re
from collections.abc import Callable, Set

import torch
from torch import nn

from cvmh.config import TrainSettings

# Parameters that weight decay would harm: those that are no matrices, the SSM's own, and positions.
NO_DECAY_NAMES = ("A_log", "D", "dt_bias", "direction_weight", "position")
# What FSDP puts into the names of parts that it wraps.
SHARDED = "_fsdp_wrapped_module."
# What comes before the head, under the names of our networks and of smp's.
ENCODER_PARTS = ("stem", "encoder", "merge")
# What comes before the first stage.
STEMS = {"stem", "tokeniser"}


def make_optimiser(
    network: nn.Module,
    settings: TrainSettings,
    *,
    fused: bool = False,
    decayed: Set[str] | None = None,
) -> torch.optim.AdamW:
    """Return AdamW whose groups carry ``factor``, by which the schedule's rate is multiplied.

    Norms, biases, positions, A_log, D and dt_bias are not decayed. The encoder's factor is
    ``encoder_rate``; with ``layer_decay`` below 1 it falls by that factor per stage from the
    deepest stage to the stem, as BEiT's fine-tuning does per layer (Bao et al. 2021).
    Parameters that need no gradient are left out.

    Args:
        network: its parameters are grouped.
        settings: rates and weight decay.
        fused: update all parameters in one pass.
        decayed: the names of :func:`decayed_names`, where processes share the weights by now and
            hold pieces that have no shape.
    """
    factor_of = _factors(network, settings)
    if decayed is None:
        decayed = decayed_names(network)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for wrapped, parameter in network.named_parameters():
        name = wrapped.replace(SHARDED, "")
        if parameter.requires_grad:
            groups.setdefault((factor_of(name), name in decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "factor": factor,
            }
            for (factor, decays), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        fused=fused,
    )


def decayed_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay does good."""
    return {name for name, value in network.named_parameters() if is_decayed(name, value)}


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay does a parameter good: a matrix or kernel, not one of the SSM's."""
    return parameter.ndim >= 2 and name.rsplit(".", 1)[-1] not in NO_DECAY_NAMES


def stage_of(name: str) -> int | None:
    """Return the stage of an encoder that a parameter belongs to; None in a decoder or a head.

    It is the first number in the name after the encoder's: ``encoder.layer3.0.conv1.weight`` of
    smp's ResNets is in stage 3, ``encoder.2.blocks.0.norm.weight`` of ours in stage 2. What has
    none, and a stem, is in stage 0. A neck between encoder and decoder is of the decoder.
    """
    part, _, rest = name.partition(".")
    if part not in ENCODER_PARTS:
        return None
    words = (part, *rest.split("."))
    if any(word.startswith("neck_") for word in words):
        return None
    number = None if STEMS.intersection(words) else re.search(r"\d+", rest)
    return int(number[0]) if number else 0


def _factors(network: nn.Module, settings: TrainSettings) -> Callable[[str], float]:
    names = [name.replace(SHARDED, "") for name, _ in network.named_parameters()]
    deepest = max((stage_of(name) or 0 for name in names), default=0)

    def factor(name: str) -> float:
        stage = stage_of(name)
        if stage is None:
            return 1.0
        return settings.encoder_rate * settings.layer_decay ** (deepest + 1 - stage)

    return factor
