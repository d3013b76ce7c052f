"""GroupMamba: Shaker et al. 2024, "GroupMamba: Efficient Group-Based Visual State Space Model".

arXiv 2407.13772; built as the released code computes, which its weights need (docs/groupmamba.md).
B batch, C channels, H W map.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from cvmh.models.encoders.pyramid import Pyramid
from cvmh.models.encoders.steps import StridedConv
from cvmh.models.encoders.variant import Family, Four, Published, Variant, initialise
from cvmh.models.feed_forward import FeedForward
from cvmh.models.group_layer import GroupLayer
from cvmh.models.layers import conv_norm_relu, to_channels_last
from cvmh.models.mixer_block import MixerBlock
from cvmh.settings import Settings

# Of every LayerNorm but those of the mixers and of the steps, which have torch's.
NORM_EPS = 1e-6
# A quarter of the channels goes along each path.
Width = Annotated[int, Field(ge=4, multiple_of=4)]


class GroupMambaSettings(Settings):
    """What GroupMambas differ in; the defaults are GroupMamba-T."""

    bands: int = Field(3, ge=1)
    stem_width: int = Field(32, ge=1)
    widths: tuple[Width, Width, Width, Width] = (64, 128, 348, 448)
    depths: Four = (3, 4, 9, 3)
    # Inner channels of the feed-forward layers over channels of the map.
    ffn_ratios: tuple[float, float, float, float] = (8, 8, 4, 4)
    drop_path: float = Field(0.05, ge=0, lt=1)
    out_indices: tuple[int, ...] = (0, 1, 2, 3)


class DeepStem(nn.Module):
    """Reach a quarter of the resolution by four convolutions, the first and last with stride 2."""

    def __init__(self, bands: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *conv_norm_relu(bands, hidden, size=7, stride=2),
            *conv_norm_relu(hidden, hidden),
            *conv_norm_relu(hidden, hidden),
        )
        self.step = StridedConv(hidden, channels)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Map (B, bands, H, W) to (B, H / 4, W / 4, C)."""
        return self.step(to_channels_last(self.convs(image_BCHW)))


class GroupMamba(Pyramid):
    """Encode an image (B, bands, H, W) to maps (B, C_i, H / 4 2^i, W / 4 2^i), i from 0 to 3."""

    def __init__(self, settings: GroupMambaSettings) -> None:
        def make_block(stage: int, channels: int, rate: float) -> MixerBlock:
            ffn = partial(FeedForward, ratio=settings.ffn_ratios[stage], sees_neighbours=True)
            return MixerBlock(
                channels,
                mixer=GroupLayer,
                ffn=ffn,
                drop_path=rate,
                has_mixer_norm=False,
                ffn_eps=NORM_EPS,
            )

        super().__init__(
            bands=settings.bands,
            widths=settings.widths,
            depths=settings.depths,
            out_indices=settings.out_indices,
            stem=DeepStem(settings.bands, settings.stem_width, settings.widths[0]),
            make_step=StridedConv,
            make_block=make_block,
            drop_path=settings.drop_path,
            norm_eps=NORM_EPS,
            is_normed_between=True,
        )
        self.settings = settings
        self.apply(_initialise)


class ClassBlock(nn.Module):
    """The block that the average over the image passes before it is classified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixer = GroupLayer(channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.ffn_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.ffn = FeedForward(channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Map (B, 1, 1, C) to (B, 1, 1, C)."""
        # This norm stands behind the mixer, as the released weights were trained.
        x_BHWC = x_BHWC + self.norm(self.mixer(x_BHWC))
        return x_BHWC + self.ffn(self.ffn_norm(x_BHWC))


class GroupMambaClassifier(nn.Module):
    """Classify images by two heads: one trained by labels, one by the answers of a teacher.

    The encoder's last LayerNorm moves behind the class block.
    """

    def __init__(self, encoder: GroupMamba, num_classes: int = 1000) -> None:
        super().__init__()
        self.encoder = encoder
        self.block = ClassBlock(encoder.widths[-1])
        self.norm, encoder.norms[-1] = encoder.norms[-1], nn.Identity()
        self.head = nn.Linear(encoder.widths[-1], num_classes)
        self.teacher_head = nn.Linear(encoder.widths[-1], num_classes)
        for part in (self.block, self.head, self.teacher_head):
            part.apply(_initialise)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the mean (B, num_classes) of both heads' logits of an image (B, bands, H, W)."""
        first, second = self.logits(image_BCHW)
        return (first + second) / 2

    def logits(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, num_classes) of both heads, which are trained apart."""
        mean = to_channels_last(self.encoder(image_BCHW)[-1]).mean(dim=(1, 2), keepdim=True)
        token = self.norm(self.block(mean)).flatten(1)
        return self.head(token), self.teacher_head(token)


def _initialise(module: nn.Module) -> None:
    initialise(module)
    if isinstance(module, nn.Conv2d):
        # Outputs that a weight has a part in, of each group of channels.
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _variant(
    stem: int, widths: Sequence[int], depths: Sequence[int], published: Published
) -> Variant:
    settings = {"stem_width": stem, "widths": tuple(widths), "depths": tuple(depths)}
    return Variant(settings=settings, published=published)


GROUPMAMBA = Family(
    name="GroupMamba",
    source="Shaker et al. 2024, arXiv 2407.13772",
    licence="code: MIT, weights: not stated",
    settings=GroupMambaSettings,
    encoder=GroupMamba,
    classifier=GroupMambaClassifier,
    variants={
        "groupmamba_tiny": _variant(
            32, (64, 128, 348, 448), (3, 4, 9, 3), Published(23_361_917, 4.5, 83.3, 48.6)
        ),
        "groupmamba_small": _variant(
            64, (64, 128, 348, 512), (3, 4, 16, 3), Published(34_781_555, 7.0, 83.9)
        ),
        "groupmamba_base": _variant(
            64, (96, 192, 424, 512), (3, 6, 21, 3), Published(57_150_838, 14.0, 84.5)
        ),
    },
)
