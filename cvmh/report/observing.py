"""What an evaluation shows to those who look at every scored pixel.

Legend: H rows, W columns.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets import LabelledImage
from cvmh.geo.tiling import Window


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole rows of a scene: what is there, what was predicted, and how surely.

    The blocks of a scene come from top to bottom, the scenes in the order of the data set: those
    that the first protocol scores, each once whatever number of protocols there is. The labels are
    the full ones where there are some, also for a protocol of eroded ones.

    Args:
        image: the labelled image; ``image.image`` is its path, ``image.stem`` its name.
        window: where the block lies on it.
        truth_HW: class ids; 255 where no label counts, also where the image has no data.
        guess_HW: predicted class ids; 255 where the image has no data.
        confidence_HW: the score of the predicted class, 0..1, in steps of 1/254; NaN without data.
    """

    image: LabelledImage
    window: Window
    truth_HW: NDArray[np.uint8]
    guess_HW: NDArray[np.uint8]
    confidence_HW: NDArray[np.float32]


class Observer(Protocol):
    """Takes note of the blocks of an evaluation, each of which is gone afterwards."""

    def add(self, block: Block) -> None:
        """Look at a block; its arrays must not be changed."""
