"""PlainMamba: Yang et al. 2024, "PlainMamba: Improving Non-Hierarchical Mamba in Visual
Recognition" (arXiv 2403.17695).

One resolution, one width, no feed-forward layers: a tokeniser of stride 16, learned
positions, and layers that scan along snakes. Dense use takes four of its maps through a simple
pyramid. B batch, C channels, H W map.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.encoders.encoder import Encoder
from cvmh.models.encoders.pyramid import STRIDES
from cvmh.models.encoders.simple_pyramid import make_level
from cvmh.models.encoders.variant import Family, Published, Variant, initialise
from cvmh.models.layers import check_image, conv_norm_relu, to_channels_first, to_channels_last
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning.course import start_course
from cvmh.models.pruning.published import ReductionSettings
from cvmh.models.ss2d import SS2D
from cvmh.settings import Settings

NUM_MAPS = len(STRIDES)
# Stride of the tokens.
STRIDE = 16
# Pixels of the half-size map along each side of what becomes a token.
PATCH = 8
STEM_WIDTH = 64


class PlainMambaSettings(Settings):
    """What PlainMambas differ in; the defaults are PlainMamba-L1."""

    bands: int = Field(3, ge=1)
    width: int = Field(192, ge=4, multiple_of=4)
    depth: int = Field(24, ge=NUM_MAPS)
    # 3x3 convolutions of the tokeniser.
    num_convs: int = Field(1, ge=0)
    # Whether the first layer is followed by a depth-wise convolution.
    has_local: bool = True
    # Rows and columns of the table of positions, which is stretched to the map.
    grid: int = Field(14, ge=1)
    # Two oddities of the released code, which its weights need; the paper has them the other way.
    reorder_parameters: bool = False
    double_dt_bias: bool = True
    # Whether maps have strides 4, 8, 16 and 32; else all of them have 16.
    pyramid: bool = True
    drop_path: float = Field(0.1, ge=0, lt=1)
    # Leave out tokens by a published method.
    pruning: ReductionSettings | None = None
    out_indices: tuple[int, ...] = (0, 1, 2, 3)


class Tokeniser(nn.Module):
    """Make tokens of 16 x 16 pixels: a strided 7x7 convolution, some 3x3 ones, an 8x8 projection.

    Zeros are added at the bottom and on the right, so that any image will do.
    """

    def __init__(self, bands: int, channels: int, *, num_convs: int) -> None:
        super().__init__()
        self.stem = conv_norm_relu(bands, STEM_WIDTH, size=7, stride=2)
        convs = [
            layer for _ in range(num_convs) for layer in conv_norm_relu(STEM_WIDTH, STEM_WIDTH)
        ]
        self.convs = nn.Sequential(*convs)
        self.project = nn.Conv2d(STEM_WIDTH, channels, PATCH, stride=PATCH)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / 16, W / 16, C)."""
        half = self.convs(self.stem(image_BCHW))
        padding = (0, -half.shape[-1] % PATCH, 0, -half.shape[-2] % PATCH)
        return to_channels_last(self.project(functional.pad(half, padding)))


class LocalConv(nn.Module):
    """A depth-wise 3x3 convolution, batch norm and GELU, with no residual around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x_BCHW = self.norm(self.conv(to_channels_first(x_BHWC)))
        return functional.gelu(to_channels_last(x_BCHW))


class PlainMamba(Encoder):
    """Encode an image (B, bands, H, W) to maps of strides 4, 8, 16 and 32, or four of stride 16.

    The maps are those behind each quarter of the layers, the earliest made the finest, each behind
    a LayerNorm; that of the last one is the classifier's. As in ViTDet (Li et al. 2022), a map is
    enlarged by transposed convolutions of 2x2, halved by pooling, or left alone: C / 4, C / 2, C
    and C channels.
    """

    def __init__(self, settings: PlainMambaSettings) -> None:
        width, depth = settings.width, settings.depth
        super().__init__(
            bands=settings.bands,
            widths=[width // 4, width // 2, width, width] if settings.pyramid else [width] * 4,
            strides=STRIDES if settings.pyramid else [STRIDE] * NUM_MAPS,
            out_indices=settings.out_indices,
        )
        self.settings = settings
        self.reduction = None if settings.pruning is None else settings.pruning.completed(depth)
        self.tokeniser = Tokeniser(settings.bands, width, num_convs=settings.num_convs)
        self.position = nn.Parameter(torch.empty(1, settings.grid, settings.grid, width))
        mixer = partial(
            SS2D,
            paths="snake",
            is_shared=True,
            conv_size=7,
            proj_bias=True,
            has_norm=False,
            has_directions=True,
            reorder_parameters=settings.reorder_parameters,
            double_dt_bias=settings.double_dt_bias,
        )
        # Behind which layers the maps are; what follows the last one is left out.
        self.ends = [depth * (index + 1) // NUM_MAPS - 1 for index in range(NUM_MAPS)]
        last = self.ends[max(self.out_indices)]
        rates = np.linspace(0, settings.drop_path, depth).tolist()
        self.layers = nn.ModuleList(
            MixerBlock(width, mixer=mixer, drop_path=rate) if number <= last else nn.Identity()
            for number, rate in enumerate(rates)
        )
        self.local = LocalConv(width) if settings.has_local else nn.Identity()
        self.neck_norms = _for_each_map(lambda _: nn.LayerNorm(width, eps=1e-6), self.out_indices)
        self.neck_levels = _for_each_map(
            lambda index: make_level(index, width) if settings.pyramid else nn.Identity(),
            self.out_indices,
        )
        self.apply(initialise)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps (B, C, H / stride, W / stride), finest first."""
        behind, maps = self._quarters(image_BCHW), []
        for index, stride in zip(self.out_indices, self.strides, strict=True):
            level = self.neck_levels[index](self.neck_norms[index](behind[index]))
            height, width = (-(-size // stride) for size in image_BCHW.shape[-2:])
            maps.append(to_channels_first(level[:, :height, :width]))
        return maps

    def tokens(self, image_BCHW: Tensor) -> Tensor:
        """Return the normed tokens (B, H / 16, W / 16, C) behind the last layer."""
        return self.neck_norms[-1](self._quarters(image_BCHW)[-1])

    def _quarters(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps (B, H / 16, W / 16, C) behind each quarter of the layers."""
        check_image(image_BCHW, self.bands)
        x_BHWC = self.tokeniser(image_BCHW)
        x_BHWC = x_BHWC + self._positions(x_BHWC.shape[1], x_BHWC.shape[2])
        _, rows, columns, _ = x_BHWC.shape
        course = start_course(self.reduction, rows=rows, columns=columns, is_masked=self.training)
        behind: list[Tensor] = []
        # The first layer may be followed by a convolution.
        x_BHWC, start = self.local(course.run(self.layers[:1], x_BHWC)), 1
        for end in self.ends[: max(self.out_indices) + 1]:
            x_BHWC = course.run(self.layers[start : end + 1], x_BHWC)
            start = end + 1
            behind.append(x_BHWC)
        return behind

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the learned positions, bicubic where the map is not of the table's size."""
        if (height, width) == self.position.shape[1:3]:
            return self.position
        table = to_channels_first(self.position)
        return to_channels_last(functional.interpolate(table, (height, width), mode="bicubic"))


class PlainMambaClassifier(nn.Module):
    """Average the last tokens over the image and give logits of its classes.

    It reads them before any pyramid; the encoder's ``out_indices`` must have the last map.
    """

    def __init__(self, encoder: PlainMamba, num_classes: int = 1000) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.settings.width, num_classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of an image (B, bands, H, W)."""
        return self.head(self.encoder.tokens(image_BCHW).mean(dim=(1, 2)))


def _for_each_map(make: Callable[[int], nn.Module], wanted: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(
        make(index) if index in wanted else nn.Identity() for index in range(NUM_MAPS)
    )


PLAINMAMBA = Family(
    name="PlainMamba",
    source="Yang et al. 2024, arXiv 2403.17695",
    licence="weights: Apache-2.0",
    settings=PlainMambaSettings,
    encoder=PlainMamba,
    classifier=PlainMambaClassifier,
    variants={
        "plainmamba_l1": Variant(settings={}, published=Published(7_551_656, 3.0, 77.9, 44.1)),
        "plainmamba_l2": Variant(
            settings={"width": 384, "num_convs": 2, "has_local": False, "drop_path": 0.2},
            published=Published(26_145_832, 8.1, 81.6, 46.8),
        ),
        "plainmamba_l3": Variant(
            settings={
                "width": 448,
                "depth": 36,
                "num_convs": 2,
                "has_local": False,
                "drop_path": 0.3,
            },
            published=Published(50_956_456, 14.4, 82.3, 49.1),
        ),
    },
)
