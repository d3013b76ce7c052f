"""VSSD: Shi et al. 2024, "Vision Mamba with Non-Causal State Space Duality" (arXiv 2407.18559).

Written from the equations alone. The networks of the 2024 release; those of ICCV 2025 differ in
three additions whose code was not available. B batch, C channels, H W map.
"""

from functools import partial

from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from cvmh.models.attention import Attention
from cvmh.models.encoders.pyramid import Pyramid
from cvmh.models.encoders.residual_steps import ResidualStem, WideStep
from cvmh.models.encoders.variant import Family, Four, Published, Variant, initialise
from cvmh.models.feed_forward import FeedForward
from cvmh.models.mixer_block import Layer, MixerBlock
from cvmh.models.nc_ssd import NCSSD
from cvmh.settings import Settings

LAST = 3


class VSSDSettings(Settings):
    """What VSSDs differ in; the defaults are VSSD-T."""

    bands: int = Field(3, ge=1)
    width: int = Field(64, ge=2)
    depths: Four = (2, 4, 8, 4)
    d_state: int = Field(64, ge=1)
    # Inner channels of NC-SSD over channels of the map.
    expand: float = Field(2.0, gt=0)
    # Whether the last stage mixes by self-attention.
    has_attention: bool = True
    heads: Four = Field((2, 4, 8, 16), validate_default=True)
    # Whether the weights of pixels are dt |A|, whether they sum to one, whether the gate passes
    # SiLU: the published weights want these three as they are here.
    is_positive: bool = True
    is_normalised: bool = False
    is_gate_activated: bool = False
    drop_path: float = Field(0.2, ge=0, lt=1)
    out_indices: tuple[int, ...] = (0, 1, 2, 3)

    @field_validator("heads")
    @classmethod
    def _divide_the_channels(cls, heads: Four, info: ValidationInfo) -> Four:
        # Where an earlier setting is wrong, that is what is told.
        if {"width", "expand", "has_attention"} <= info.data.keys():
            inner = [int(info.data["expand"] * width) for width in widths_of(info.data["width"])]
            if info.data["has_attention"]:
                inner[LAST] = widths_of(info.data["width"])[LAST]
            if any(
                count < 1 or channels % count for count, channels in zip(heads, inner, strict=True)
            ):
                raise ValueError(f"must divide the stages' inner channels {tuple(inner)}")
        return heads


def widths_of(width: int) -> tuple[int, ...]:
    """Return the channels of the four stages."""
    return tuple(width * 2**stage for stage in range(LAST + 1))


class VSSD(Pyramid):
    """Encode an image (B, bands, H, W) to maps (B, C 2^i, H / 4 2^i, W / 4 2^i), i from 0 to 3."""

    def __init__(self, settings: VSSDSettings) -> None:
        def make_block(stage: int, channels: int, rate: float) -> nn.Module:
            mixer = _mixer(settings, stage)
            return MixerBlock(
                channels, mixer=mixer, ffn=FeedForward, drop_path=rate, has_positions=True
            )

        super().__init__(
            bands=settings.bands,
            widths=widths_of(settings.width),
            depths=settings.depths,
            out_indices=settings.out_indices,
            stem=ResidualStem(settings.bands, settings.width),
            make_step=WideStep,
            make_block=make_block,
            drop_path=settings.drop_path,
        )
        self.settings = settings
        self.apply(initialise)


def _mixer(settings: VSSDSettings, stage: int) -> Layer:
    heads = settings.heads[stage]
    if settings.has_attention and stage == LAST:
        return partial(Attention, num_heads=heads)
    return partial(
        NCSSD,
        num_heads=heads,
        d_state=settings.d_state,
        expand=settings.expand,
        is_positive=settings.is_positive,
        is_normalised=settings.is_normalised,
        is_gate_activated=settings.is_gate_activated,
    )


# The sources do not tell the rates of stochastic depth: they are those of VMamba of the same size.
VSSDS = Family(
    name="VSSD",
    source="Shi et al. 2024, arXiv 2407.18559",
    licence="weights: no licence given",
    settings=VSSDSettings,
    encoder=VSSD,
    variants={
        "vssd_micro": Variant(
            settings={"width": 48, "depths": (2, 2, 8, 4), "d_state": 48},
            published=Published(13_512_964, 2.3, 82.5, 45.6),
        ),
        "vssd_tiny": Variant(settings={}, published=Published(24_270_724, 4.5, 83.6, 47.9)),
        "vssd_small": Variant(
            settings={"depths": (3, 4, 21, 5), "drop_path": 0.3},
            published=Published(40_075_650, 7.4, 84.1),
        ),
        "vssd_base": Variant(
            settings={
                "width": 96,
                "depths": (3, 4, 21, 5),
                "heads": (3, 6, 12, 24),
                "drop_path": 0.6,
            },
            published=Published(88_823_151, 16.1, 84.7),
        ),
    },
)
