"""What all blocks share: the two memory layouts of a map, padding, and layers that torch lacks.

Maps lie in memory channel-last, as scans, norms and matrix products want them; convolutions get a
view. B batch, C channels, H W map, D inner channels.
"""

from torch import Tensor, nn
from torch.nn import functional

from cvmh.errors import ShapeError


def to_channels_first(x_BHWC: Tensor) -> Tensor:
    """View (B, H, W, C) as (B, C, H, W) without moving memory."""
    return x_BHWC.permute(0, 3, 1, 2)


def to_channels_last(x_BCHW: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, H, W, C) without moving memory."""
    return x_BCHW.permute(0, 2, 3, 1)


def check_image(image_BCHW: Tensor, bands: int) -> None:
    """Refuse what is no batch of images of so many bands, before a convolution does.

    Raises:
        ShapeError: it is not (B, bands, H, W).
    """
    if image_BCHW.dim() != 4 or image_BCHW.shape[1] != bands:
        raise ShapeError(
            f"images must be (B, {bands}, H, W) for a network of {bands} bands, got "
            f"{tuple(image_BCHW.shape)}"
        )


def pad_below(image_BCHW: Tensor, multiple: int, *, smallest: int = 1) -> Tensor:
    """Repeat an image's last row and column until its sides are multiples, at least the smallest.

    Args:
        image_BCHW: (B, C, H, W).
        multiple: of pixels.
        smallest: height and width at least, a multiple.
    """
    height, width = image_BCHW.shape[-2:]
    below = max(-height % multiple, smallest - height)
    right = max(-width % multiple, smallest - width)
    if not (below or right):
        return image_BCHW
    return functional.pad(image_BCHW, (0, right, 0, below), mode="replicate")


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, computed as one matrix product over the channel-last map."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 1, bias=bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W)."""
        x_BHWC = to_channels_last(x_BCHW)
        return to_channels_first(functional.linear(x_BHWC, self.weight.flatten(1), self.bias))


def conv_norm_relu(
    channels_in: int, channels_out: int, *, size: int = 3, stride: int = 1
) -> nn.Sequential:
    """Make a convolution without bias, a batch norm and ReLU, of maps (B, C, H, W)."""
    conv = nn.Conv2d(channels_in, channels_out, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


class WideNorm(nn.LayerNorm):
    """A LayerNorm that works in the precision of its input, whatever that of its own weights.

    Scans and sums over a map give float32 even in networks of 16 bit: they can leave the range of
    float16, and only the norm brings them back into it.
    """

    def forward(self, x_BHWD: Tensor) -> Tensor:
        """Map (B, H, W, D) to (B, H, W, D)."""
        weight, bias = self.weight.to(x_BHWD.dtype), self.bias.to(x_BHWD.dtype)
        return functional.layer_norm(x_BHWD, self.normalized_shape, weight, bias, self.eps)
