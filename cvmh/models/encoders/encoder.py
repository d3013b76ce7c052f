"""What every encoder is: an image in, feature maps of rising stride out.

B batch, C channels, H W map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cvmh.errors import ConfigError


class Encoder(nn.Module):
    """Make feature maps (B, C, H / stride, W / stride) of an image (B, bands, H, W), any H and W.

    Sizes are rounded up. A subclass makes its modules, and its ``forward`` returns the maps that
    ``out_indices`` asks for, finest first.

    Args:
        bands: of the images.
        widths: channels C of all maps that it can make, finest first.
        strides: of the same maps.
        out_indices: which of them it returns, rising.

    Raises:
        ConfigError: it cannot make the maps that are asked for.
    """

    def __init__(
        self,
        *,
        bands: int,
        widths: Sequence[int],
        strides: Sequence[int],
        out_indices: Sequence[int],
    ) -> None:
        super().__init__()
        known = set(range(len(strides))) & set(out_indices)
        if not known or list(out_indices) != sorted(known):
            raise ConfigError(
                f"out_indices must be rising numbers from 0 to {len(strides) - 1}, got "
                f"{tuple(out_indices)}"
            )
        self.bands = bands
        self.out_indices = tuple(out_indices)
        self.widths = tuple(widths[index] for index in self.out_indices)
        self.strides = tuple(strides[index] for index in self.out_indices)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels and stride of each map that is returned, under timm's names."""
        pairs = zip(self.out_indices, self.widths, self.strides, strict=True)
        return [{"index": i, "num_chs": c, "reduction": stride} for i, c, stride in pairs]

    def stages_by_stride(self) -> Mapping[int, Sequence[nn.Module]]:
        """Return the modules that work at each stride, the step to it included.

        Convolutions in them can be dilated in place of striding; empty where that makes no sense.
        """
        return {}

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps (B, C, H / stride, W / stride), finest first."""
        raise NotImplementedError
