"""How the published files of a family name and shape what our encoders hold."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Weights = Mapping[str, Tensor]
# Pairs of a pattern and its replacement.
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The way from the names of a published file to ours; one for each family.

    Args:
        prefixes: what may stand before all keys of a backbone, such as ``backbone.``.
        renames: (pattern, replacement) pairs; of each kind of key one matches it as a whole, and a
            key that none matches is not known.
        reshape: gives a tensor under our key the shape that we have it in.
        dropped: pattern of keys that an encoder does without, such as the classifier's.
        absent: pattern of our keys that published files do without; they stay random.
        detect: names the variant that the tensors are of, under their published names without
            prefix, or None where they are of no variant of the family.
    """

    prefixes: tuple[str, ...]
    renames: Renames
    reshape: Callable[[str, Tensor], Tensor]
    dropped: str
    absent: str
    detect: Callable[[Weights], str | None]

    def rename(self, key: str) -> str | None:
        """Return our name of a published key, None where it is not known."""
        for pattern, replacement in self.renames:
            if match := re.fullmatch(pattern, key):
                return match.expand(replacement)
        return None
