"""Counting the confidence of an evaluation's pixels as they pass."""

import numpy as np

from cvmh.metrics.calibration import FULL_LEVEL, Reliability, ReliabilityCounter
from cvmh.report.observing import Block


class ReliabilityObserver:
    """Adds up the confidence of all labelled pixels of an evaluation.

    Args:
        num_classes: the number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self._counter = ReliabilityCounter(num_classes)

    def add(self, block: Block) -> None:
        """Count the pixels of a block."""
        # The confidence comes in levels, each of which is binned by the middle of its scores.
        levels = np.rint(np.nan_to_num(block.confidence_HW) * FULL_LEVEL).astype(np.uint8)
        self._counter.add_levels(block.truth_HW, block.guess_HW, levels)

    @property
    def found(self) -> Reliability:
        """The reliability of all that was counted."""
        return self._counter.overall()

    @property
    def by_class(self) -> tuple[Reliability, ...]:
        """The reliability of the pixels that are predicted as each class."""
        return self._counter.by_class()
