"""Series with gaps: what is known of them, their scale, and their patches.

B samples, M variates, T time steps, P steps of a patch, L patches, F features of a time step.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# A series whose deviation is smaller than this share of its mean is constant but for rounding.
CONSTANT_BELOW = 1e-4


class Series(NamedTuple):
    """Series (B, M, T), 0 where unknown, and where they are known.

    The series were divided by ``deviation`` after ``mean`` was taken off, both (B, M, 1).
    """

    values: Tensor
    is_known: Tensor
    mean: Tensor
    deviation: Tensor

    def unscale(self, values: Tensor) -> Tensor:
        """Bring values (B, M, any) back to the units of the series."""
        return values * self.deviation + self.mean


def read_series(values_BMT: Tensor, *, is_scaled: bool) -> Series:
    """Return series whose gaps (NaN) are known, in their own scale if wanted.

    Each variate of each sample is brought to mean 0 and deviation 1 over its known steps, a
    constant one to 0; one without any known step is 0 as well.
    """
    is_known = ~values_BMT.isnan()
    values = torch.where(is_known, values_BMT, 0)
    mean = torch.zeros_like(values[..., :1])
    deviation = torch.ones_like(mean)
    if is_scaled:
        count = is_known.sum(dim=-1, keepdim=True).clamp_min(1)
        mean = values.sum(dim=-1, keepdim=True) / count
        values = torch.where(is_known, values - mean, 0)
        variance = (values**2).sum(dim=-1, keepdim=True) / count
        is_constant = variance <= (CONSTANT_BELOW * mean) ** 2
        # Inside the root, whose slope at 0 is not finite.
        deviation = torch.where(is_constant, 1, variance).sqrt()
        values = values / deviation
    return Series(values, is_known, mean, deviation)


def known_or_mean(values: Tensor) -> Tensor:
    """Return standardised values with 0, their mean, where they are NaN."""
    return torch.where(values.isnan(), 0, values)


def patches(features_BMTF: Tensor, patch: int) -> Tensor:
    """Return the patches of series, (B, M, L, P F).

    Where the length does not divide, steps of zeros come before the first one, so that the last
    patch ends with the series.
    """
    missing = -features_BMTF.shape[2] % patch
    padded = functional.pad(features_BMTF, (0, 0, missing, 0))
    return padded.unflatten(2, (-1, patch)).flatten(3)
