"""How far the borders in a label lie from the edges in its image.

The steps between neighbouring pixels of the image are correlated with those of the label, by FFT,
for every shift up to :data:`REACH` pixels. Where the label fits, the correlation has its peak at
no shift; where a mask was moved, the peak moves with it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID

# The largest shift that is looked for, in pixels.
REACH = 24
# Steps above this percentile count alike: one glaring roof must not outweigh a hundred fields.
CAP = 97


class Shift(NamedTuple):
    """Where the peak of a correlation lies, and how far it and the value at no shift stand out.

    ``rows`` and ``columns`` say how far the label lies below and to the right of the image;
    the heights are in robust standard deviations of the whole surface.
    """

    rows: int
    columns: int
    peak: float
    at_zero: float


@dataclass
class Correlation:
    """Sums of products of image steps and label steps, one for each shift (2 REACH + 1)^2."""

    surface: NDArray[np.float64]
    borders: int = 0

    @classmethod
    def empty(cls) -> "Correlation":
        """Return the correlation of nothing."""
        return cls(np.zeros((2 * REACH + 1, 2 * REACH + 1)))

    def add(self, other: "Correlation") -> None:
        """Add what another image or window gave."""
        self.surface += other.surface
        self.borders += other.borders

    def find_shift(self) -> Shift:
        """Return the peak."""
        middle = np.median(self.surface)
        spread = 1.4826 * np.median(np.abs(self.surface - middle)) or 1.0
        row, column = np.unravel_index(int(self.surface.argmax()), self.surface.shape)
        heights = (self.surface - middle) / spread
        return Shift(
            REACH - int(row),
            REACH - int(column),
            float(heights[row, column]),
            float(heights[REACH, REACH]),
        )


def correlate(
    grey: NDArray[np.float32], ids: NDArray[np.uint8], valid: NDArray[np.bool_]
) -> Correlation:
    """Correlate one window.

    Args:
        grey: (H, W), the image as one band.
        ids: (H, W) class ids; borders to ignored pixels do not count.
        valid: (H, W), true where the image has data.
    """
    result = Correlation.empty()
    size = [scipy.fft.next_fast_len(side + REACH, real=True) for side in grey.shape]
    for axis in (0, 1):
        steps = _image_steps(grey, valid, axis)
        first, second = _neighbours(ids, axis)
        borders = (first != second) & (first != NODATA_ID) & (second != NODATA_ID)
        if steps is None or not borders.any():
            continue
        product = scipy.fft.rfft2(steps, size) * np.conj(
            scipy.fft.rfft2(borders.astype(np.float32), size)
        )
        turned = np.roll(scipy.fft.irfft2(product, size), (REACH, REACH), (0, 1))
        result.surface += turned[: 2 * REACH + 1, : 2 * REACH + 1]
        result.borders += int(np.count_nonzero(borders))
    return result


def _image_steps(
    grey: NDArray[np.float32], valid: NDArray[np.bool_], axis: int
) -> NDArray[np.float32] | None:
    first, second = _neighbours(np.where(valid, grey, np.float32(0)), axis)
    inside = np.logical_and(*_neighbours(valid, axis))
    steps = np.abs(second - first)
    if not inside.any():
        return None
    cap = np.percentile(steps[inside], CAP)
    if not cap > 0:
        return None
    steps = np.minimum(steps, cap) / cap
    return np.where(inside, steps - steps[inside].mean(), np.float32(0)).astype(np.float32)


def _neighbours(array: NDArray, axis: int) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
    return (array[:-1], array[1:]) if axis == 0 else (array[:, :-1], array[:, 1:])
