"""The weights of a first convolution for other bands than it was trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fit_to_bands(weight: Tensor, bands: Sequence[int | None]) -> Tensor:
    """Return the weights (out, bands, ...) of a first convolution for other bands.

    All are scaled by the ratio of band counts, so that what the convolution answers keeps its size.

    Args:
        weight: as it was trained, (out, bands, ...).
        bands: which of its bands each new one is; None: one that it does not know, which gets the
            mean of those that it knows.
    """
    mean = weight.mean(dim=1)
    columns = [mean if band is None else weight[:, band] for band in bands]
    return torch.stack(columns, dim=1) * (weight.shape[1] / len(bands))
