"""What the tensors of a file tell about the network that they are of."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from cvmh.models.encoders.variant import Family
from cvmh.models.weights.layout import Weights


def num_rows(weights: Weights, pattern: str) -> int:
    """Return the first size of the tensor whose whole name matches, 0 where there is none."""
    found = [tensor for key, tensor in weights.items() if re.fullmatch(pattern, key)]
    return found[0].shape[0] if found and found[0].ndim else 0


def stage_depths(weights: Weights, pattern: str) -> tuple[int, ...]:
    """Count the blocks of each stage.

    Args:
        weights: tensors under their published names.
        pattern: of how the names of blocks begin; its groups are the stage and the block.
    """
    starts = (re.match(pattern, key) for key in weights)
    counts = Counter(stage for stage, _ in {start.groups() for start in starts if start})
    return tuple(counts[stage] for stage in sorted(counts))


def find_variant(
    family: Family, found: tuple[Any, ...], facts_of: Callable[[Any], tuple[Any, ...]]
) -> str | None:
    """Return the variant whose settings have the facts that were found, None if there is none."""
    for name, variant in family.variants.items():
        if facts_of(family.settings.model_validate(variant.settings)) == found:
            return name
    return None
