"""Where the tokens of a batch of maps lie, and what layers that see more than one ask of it.

A layer of single tokens (a projection, a LayerNorm, a 1x1 convolution) needs to know nothing. What
sees more (a convolution, a scan, a mean over the map, a batch norm) asks the grid. There are three:
the whole map; the map with pruned cells masked, which is the definition, and what networks are
trained with; and kept cells alone, which gives the same values in less time.

What is pruned is as if it were beyond the map's border: convolutions see zeros there, means and
extremes leave it out, and scans pass it with the decay of a zero token.

B tiles, N maps in memory (B, or cells), C channels, H W map, L tokens, D inner channels, K paths.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.ops.traversal import inverse_table, order_table

# Pixels along each side of a cell, the unit that is kept or pruned: the stride of the coarsest map,
# so that no token of any level lies in two.
CELL = 32
LineOrder = Literal["natural", "figure"]


class Paths(NamedTuple):
    """The order of a scan over the tokens in memory, and the gaps that it leaps over, if any."""

    order: Tensor
    gap: Tensor | None = None


class Grid:
    """All tokens of a map are kept: the dense network."""

    def take(self, x_BHWC: Tensor, outer: "Grid | None" = None) -> Tensor:
        """Return the kept tokens of maps that lie on the outer grid: (N, H, W, C)."""
        return x_BHWC

    def put(
        self, x_NHWC: Tensor, into_BHWC: Tensor | None = None, outer: "Grid | None" = None
    ) -> Tensor:
        """Return maps on the outer grid with these tokens, the rest as in others, or zero."""
        return x_NHWC

    def run(self, layers: Iterable[nn.Module], x_NCHW: Tensor) -> Tensor:
        """Map (N, C, H, W) by convolutions, batch norms and layers of single tokens, in a row."""
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                x_NCHW = self.convolve(layer, x_NCHW)
            elif isinstance(layer, nn.BatchNorm2d):
                x_NCHW = self.normalise(layer, x_NCHW)
            else:
                x_NCHW = layer(x_NCHW)
        return x_NCHW

    def convolve(self, conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, H, W) by a convolution that sees zeros at pruned tokens."""
        return conv(x_NCHW)

    def normalise(self, norm: nn.BatchNorm2d, x_NCHW: Tensor) -> Tensor:
        """Map (N, C, H, W) by a batch norm whose statistics, in training, are of kept tokens."""
        return norm(x_NCHW)

    def blank(self, x_NHWC: Tensor) -> Tensor:
        """Return maps with zeros at pruned tokens, as scans want their input."""
        return x_NHWC

    def mean(self, x_NCHW: Tensor) -> Tensor:
        """Return the mean over the kept tokens of each tile: (B, C)."""
        return functional.adaptive_avg_pool2d(x_NCHW, 1).flatten(1)

    def num_tiles(self, x_NHWC: Tensor) -> int:
        """Return how many tiles maps (N, H, W, C) are of: B."""
        return len(x_NHWC)

    def spread(self, vectors_BC: Tensor) -> Tensor:
        """Return a vector of each tile beside the maps that are its: (N, C, 1, 1)."""
        return vectors_BC[:, :, None, None]

    def size_of(self, x_NCHW: Tensor) -> tuple[int, int]:
        """Return height and width of the whole map that (N, C, H, W) is kept of."""
        return x_NCHW.shape[-2], x_NCHW.shape[-1]

    def flatten(self, x_NHWD: Tensor) -> Tensor:
        """Return the tokens of each tile in a row: (B, L, D)."""
        return x_NHWD.reshape(x_NHWD.shape[0], -1, x_NHWD.shape[-1])

    def kept_tokens(self, x_NHWD: Tensor) -> Tensor | None:
        """Return which rows of :meth:`flatten` are kept, boolean (B, L), or None if all are."""
        return None

    def paths(self, name: str, line_order: LineOrder, x_NHWD: Tensor) -> Paths:
        """Return how a set of paths goes over the rows of :meth:`flatten`.

        Args:
            name: of the paths, as of :func:`~cvmh.ops.traversal.order_table`.
            line_order: of ``cs2d``.
            x_NHWD: the tokens.
        """
        _, height, width, _ = x_NHWD.shape
        return Paths(order_table(name, height, width, line_order=line_order, device=x_NHWD.device))

    @property
    def has_gaps(self) -> bool:
        """Whether scans leap over what is pruned, and so do not count it as steps."""
        return False

    def givers(self, name: str, line_order: LineOrder, x_NHWD: Tensor) -> Tensor:
        """Return which token's number is that of the step at which a path visits each.

        Numbers are of the rows of the map; the result is (B or 1, K, L).
        """
        order = self.paths(name, line_order, x_NHWD).order
        return inverse_table(order, order.shape[-1])[None]

    def at_tokens(self, values_KLN: Tensor, x_NHWD: Tensor) -> Tensor:
        """Return values of each pixel of the whole map for each token: (B or 1, K, L, N)."""
        return values_KLN[None]


WHOLE = Grid()


def batch_norm_of(norm: nn.BatchNorm2d, x_NCHW: Tensor, is_kept_N1HW: Tensor) -> Tensor:
    """Return a batch norm in training whose statistics are those of kept tokens.

    With all kept it is :class:`torch.nn.BatchNorm2d`, running statistics included; with none, it
    normalises by the running ones.
    """
    wide = x_NCHW.to(torch.promote_types(x_NCHW.dtype, torch.float32))
    kept = is_kept_N1HW.expand(-1, -1, *x_NCHW.shape[-2:]).to(wide.dtype)
    count = kept.sum()
    if count == 0:
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = norm.running_mean, norm.running_var
    else:
        mean = (wide * kept).sum((0, 2, 3)) / count
        variance = ((wide - mean[:, None, None]).square() * kept).sum((0, 2, 3)) / count
        _remember(norm, mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    return torch.addcmul(shift[:, None, None], x_NCHW, scale[:, None, None]).to(x_NCHW.dtype)


def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
