"""What is known of regions besides their outlines: class, area, confidence."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# The confidence 1 in a raster of uint8, whose 255 is nodata.
FULL_CONFIDENCE = 254


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is known of some regions, one entry each.

    ``areas`` in m2; ``confidences`` is the sum of the confidence over ``num_confident`` pixels.
    """

    classes: NDArray[np.uint8]
    areas: NDArray[np.float64]
    confidences: NDArray[np.int64]
    num_confident: NDArray[np.int64]

    def take(self, chosen: Any) -> Self:
        """Return those of some regions."""
        return type(self)(
            classes=self.classes[chosen],
            areas=self.areas[chosen],
            confidences=self.confidences[chosen],
            num_confident=self.num_confident[chosen],
        )

    def mean_confidences(self) -> NDArray[np.float64]:
        """Return the mean confidence of each region, 0..1; NaN where none is known."""
        with np.errstate(invalid="ignore"):
            return self.confidences / (FULL_CONFIDENCE * self.num_confident)


def no_measures() -> Measures:
    """Return what is known of no region."""
    none = np.empty(0, dtype=np.int64)
    return Measures(
        classes=none.astype(np.uint8),
        areas=none.astype(np.float64),
        confidences=none,
        num_confident=none,
    )


def concatenate(parts: list[Measures]) -> Measures:
    """Return what is known of several groups of regions, one group after another."""
    return Measures(
        classes=np.concatenate([part.classes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        num_confident=np.concatenate([part.num_confident for part in parts]),
    )
