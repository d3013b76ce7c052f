"""Pruned cells masked in maps of full size: variant E0, which defines what pruning means.

B tiles, C channels, H W map, G cells along a side.
"""

import torch
from torch import Tensor, nn

from cvmh.models.layers import to_channels_first
from cvmh.models.pruning.grid import Grid, batch_norm_of


class MaskedGrid(Grid):
    """Kept cells in maps of full size. It saves nothing, and any mask will do: for training.

    Args:
        active_BGG: which cells are kept, boolean (B, height / 32, width / 32).
    """

    def __init__(self, active_BGG: Tensor) -> None:
        self.active_BGG = active_BGG

    def take(self, x_BHWC: Tensor, outer: Grid | None = None) -> Tensor:
        """Return the maps as they are: what is pruned is looked at nowhere."""
        return x_BHWC

    def put(
        self, x_NHWC: Tensor, into_BHWC: Tensor | None = None, outer: Grid | None = None
    ) -> Tensor:
        """Return maps with these tokens where they are kept, the others', or zeros, elsewhere."""
        others = torch.zeros_like(x_NHWC) if into_BHWC is None else into_BHWC
        return torch.where(self._mask(x_NHWC), x_NHWC, others)

    def convolve(self, conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) by a convolution that sees zeros at pruned tokens."""
        if conv.kernel_size == (1, 1):
            return conv(x_NCHW)
        return conv(x_NCHW.where(self._mask_of(x_NCHW), 0))

    def normalise(self, norm: nn.BatchNorm2d, x_NCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) by a batch norm whose statistics, in training, are of kept tokens."""
        return batch_norm_of(norm, x_NCHW, self._mask_of(x_NCHW)) if norm.training else norm(x_NCHW)

    def blank(self, x_NHWC: Tensor) -> Tensor:
        """Return maps with zeros at pruned tokens."""
        return x_NHWC.where(self._mask(x_NHWC), 0)

    def mean(self, x_NCHW: Tensor) -> Tensor:
        """Return the mean over the kept tokens of each tile, zero where there are none: (B, C)."""
        mask = self._mask_of(x_NCHW)
        return x_NCHW.where(mask, 0).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)

    def kept_tokens(self, x_NHWD: Tensor) -> Tensor | None:
        """Return which tokens of the maps, row by row, are kept: boolean (B, L)."""
        return self._mask(x_NHWD).flatten(1)

    def _mask(self, x_NHWC: Tensor) -> Tensor:
        return self._mask_of(to_channels_first(x_NHWC))[:, 0, :, :, None]

    def _mask_of(self, x_NCHW: Tensor) -> Tensor:
        """Return which tokens of a map of any level are kept: (B, 1, H, W)."""
        rows, columns = self.active_BGG.shape[1:]
        side = x_NCHW.shape[-2] // rows, x_NCHW.shape[-1] // columns
        mask = self.active_BGG.repeat_interleave(side[0], 1).repeat_interleave(side[1], 2)
        return mask[:, None]
