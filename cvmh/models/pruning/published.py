"""Token reduction as published: what networks of images do, rerun here for dense maps.

``top``: Zhan et al. 2024, "Exploring Token Pruning in Vision State Space Models" (arXiv
2409.18962), drops the tokens of the lowest scores. ``utr``: Zhan et al. 2024, "Rethinking Token
Reduction for State Space Models" (arXiv 2410.14725), merges unimportant tokens into important ones.
``rmeeto``: Shi et al. 2024, "Faster Vision Mamba is Rebuilt in Minutes via Merged Token
Re-training" (arXiv 2412.12496), merges pairs and keeps the order.

What the sources leave open, and what was chosen, is in docs/token-pruning.md.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor

from cvmh.errors import ConfigError
from cvmh.models.pruning.cells import Alignment
from cvmh.models.pruning.choosing import Choice, drop_lowest, merge_neighbours, merge_unimportant
from cvmh.settings import Settings

Score = Literal["clipped_output", "output", "l1", "l2", "delta", "block_output"]
# Merging finds a partner for one token of two at most.
LEAST_MERGED = 0.5


class Method(NamedTuple):
    """A published method, and the settings that go with it."""

    # From scores (B, M), tokens (B, M, C) where it merges, and the number that stays.
    choose: Callable[[Tensor, Any, int], Choice]
    # Layers of 24 behind which it acts.
    layers: tuple[int, ...]
    keep: float
    alignment: Alignment
    score: Score | None
    merges: bool = False
    # Whether a token that stands for many weighs as many when it is merged again.
    is_weighted: bool = False


METHODS = {
    "top": Method(drop_lowest, (5, 10, 15), 0.8, "gap", "clipped_output"),
    "utr": Method(merge_unimportant, (5, 10, 15), 0.8, "gap", "block_output", True),
    "rmeeto": Method(merge_neighbours, tuple(range(2, 24, 2)), 0.93, "none", None, True, True),
}
LAYERS_OF = 24


class ReductionSettings(Settings):
    """Which published method leaves out tokens, where, and how many; None is the method's own."""

    method: Literal["top", "utr", "rmeeto"] = "top"
    # Behind how many layers, counted over all stages.
    layers: tuple[int, ...] | None = None
    # The share of what is left that stays, each time.
    keep: float | None = Field(None, gt=0, le=1)
    # How scans pass what is left out: with the decay of zero tokens, or as if it had not been.
    alignment: Alignment | None = None
    # What is high where a token matters, summed over channels: "clipped_output" max(0, y) of the
    # scans' sum y before norm and gate, "output" y unclipped, "l1" and "l2" its norms, "delta" the
    # mean step instead, "block_output" max(0, z) of what the block adds to its input.
    score: Score | None = None

    @model_validator(mode="after")
    def _refuse_what_does_not_go_together(self) -> "ReductionSettings":
        if self.method != "top" and self.keep is not None and self.keep < LEAST_MERGED:
            raise ValueError(
                f"keep must be at least {LEAST_MERGED} for {self.method}, which merges each token "
                f"with one other at most, got {self.keep}; reduce behind more layers instead"
            )
        if self.method == "rmeeto" and self.score is not None:
            raise ValueError("score must be left out for rmeeto, which merges by similarity alone")
        return self

    @property
    def is_dense(self) -> bool:
        """Whether everything stays."""
        return self.keep == 1 or self.layers == ()

    def completed(self, depth: int) -> "ReductionSettings":
        """Return these settings for a network of so many layers, with nothing left open.

        Raises:
            ConfigError: the layers are not rising, or beyond the network.
        """
        method = METHODS[self.method]
        layers = self.layers
        if layers is None:
            scaled = {depth * layer // LAYERS_OF for layer in method.layers}
            layers = tuple(sorted(scaled - {0, depth}))
        if list(layers) != sorted({*layers} & {*range(1, depth)}):
            raise ConfigError(
                f"pruning.layers must be rising numbers from 1 to {depth - 1}, behind which layers "
                f"tokens go, got {list(layers)}"
            )
        return self.model_copy(
            update={
                "layers": layers,
                "keep": method.keep if self.keep is None else self.keep,
                "alignment": self.alignment or method.alignment,
                "score": self.score or method.score,
            }
        )
