"""Mean and deviation of more pixels than fit in memory."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import DataError

# So many samples at a time, because these fit in a processor's cache.
PART = 1 << 15


class Moments:
    """Mean and deviation of a stream of pixels per band, in float64 (Chan's pairwise update)."""

    def __init__(self, num_bands: int) -> None:
        self.count = np.zeros(num_bands)
        self.mean = np.zeros(num_bands)
        self.squares = np.zeros(num_bands)

    def add(self, values_CHW: NDArray[np.float32]) -> None:
        """Add pixels (bands, H, W); NaN samples do not count."""
        for band, values in enumerate(values_CHW):
            flat = values.reshape(-1)
            for start in range(0, len(flat), PART):
                self._add(band, flat[start : start + PART])

    def _add(self, band: int, values: NDArray[np.float32]) -> None:
        missing = np.isnan(values)
        found = (values[~missing] if missing.any() else values).astype(np.float64)
        if not found.size:
            return
        mean, total = found.mean(), self.count[band] + found.size
        delta = mean - self.mean[band]
        found -= mean
        self.squares[band] += found @ found
        self.squares[band] += delta**2 * self.count[band] * found.size / total
        self.mean[band] += delta * found.size / total
        self.count[band] = total

    def result(self, folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation; a constant band gets deviation 1.

        Raises:
            DataError: a band had no pixel at all.
        """
        if not self.count.all():
            raise DataError(f"no image in {folder} has a valid pixel; check their nodata values")
        std = np.sqrt(self.squares / self.count)
        std[std == 0] = 1.0
        return tuple(self.mean.tolist()), tuple(std.tolist())
