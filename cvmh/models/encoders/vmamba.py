"""VMamba: Liu et al. 2024, "VMamba: Visual State Space Model" (arXiv 2401.10166).

Two generations of the same pyramid: "v0" of the first paper version (gated, 16 states, no MLP) and
"v2" of the published models s1lN and s2lN (no gate, one state, MLP). B batch, C channels, H W map.
"""

from functools import partial
from typing import Literal

from pydantic import Field

from cvmh.models.encoders.pyramid import Pyramid
from cvmh.models.encoders.steps import ConvEmbedding, PatchEmbedding, StridedConv
from cvmh.models.encoders.variant import Family, Four, Published, Variant, initialise
from cvmh.models.feed_forward import FeedForward
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning.published import ReductionSettings
from cvmh.models.resize import PatchMerging
from cvmh.models.ss2d import SS2D
from cvmh.settings import Settings


class VMambaSettings(Settings):
    """What VMambas differ in; the defaults are VMamba-T s1l8."""

    bands: int = Field(3, ge=1)
    width: int = Field(96, ge=2)
    depths: Four = (2, 2, 8, 2)
    generation: Literal["v0", "v2"] = "v2"
    # Inner channels of the scan over channels of the map: the "s" of a name.
    expand: float = Field(1.0, gt=0)
    drop_path: float = Field(0.2, ge=0, lt=1)
    # Leave out cells of 32 pixels by a published method: "top", the others merge single tokens.
    pruning: ReductionSettings | None = None
    out_indices: tuple[int, ...] = (0, 1, 2, 3)


class VMamba(Pyramid):
    """Encode an image (B, bands, H, W) to maps (B, C 2^i, H / 4 2^i, W / 4 2^i), i from 0 to 3."""

    def __init__(self, settings: VMambaSettings) -> None:
        is_first = settings.generation == "v0"
        mixer = partial(
            SS2D,
            paths="ss2d",
            expand=settings.expand,
            d_state=16 if is_first else 1,
            is_gated=is_first,
            conv_bias=is_first,
        )
        super().__init__(
            bands=settings.bands,
            widths=[settings.width * 2**stage for stage in range(4)],
            depths=settings.depths,
            out_indices=settings.out_indices,
            stem=(PatchEmbedding if is_first else ConvEmbedding)(settings.bands, settings.width),
            make_step=PatchMerging if is_first else StridedConv,
            make_block=lambda stage, channels, rate: MixerBlock(
                channels, mixer=mixer, ffn=None if is_first else FeedForward, drop_path=rate
            ),
            drop_path=settings.drop_path,
            pruning=settings.pruning,
        )
        self.settings = settings
        self.apply(initialise)


def _v0(width: int, depth: int, drop_path: float, published: Published) -> Variant:
    settings = {
        "generation": "v0",
        "width": width,
        "depths": (2, 2, depth, 2),
        "expand": 2.0,
        "drop_path": drop_path,
    }
    return Variant(settings=settings, published=published)


def _v2(width: int, expand: float, depth: int, drop_path: float, published: Published) -> Variant:
    settings = {
        "width": width,
        "depths": (2, 2, depth, 2),
        "expand": expand,
        "drop_path": drop_path,
    }
    return Variant(settings=settings, published=published)


VMAMBA = Family(
    name="VMamba",
    source="Liu et al. 2024, arXiv 2401.10166",
    licence="weights: MIT",
    settings=VMambaSettings,
    encoder=VMamba,
    variants={
        "vmamba_tiny_v0": _v0(96, 9, 0.2, Published(22_893_448, 5.6, 82.2, 47.3)),
        "vmamba_small_v0": _v0(96, 27, 0.3, Published(44_417_416, 11.2, 83.5, 49.5)),
        "vmamba_base_v0": _v0(128, 27, 0.6, Published(76_254_056, 18.0, 83.7, 50.0)),
        "vmamba_tiny_s2l5": _v2(96, 2.0, 5, 0.2, Published(30_705_832, 4.9, 82.5, 48.3)),
        "vmamba_tiny_s1l8": _v2(96, 1.0, 8, 0.2, Published(30_249_064, 4.9, 82.6, 47.9)),
        "vmamba_small_s2l15": _v2(96, 2.0, 15, 0.3, Published(50_147_752, 8.7, 83.6, 50.6)),
        "vmamba_small_s1l20": _v2(96, 1.0, 20, 0.3, Published(49_012_840, 8.6, 83.3)),
        "vmamba_base_s2l15": _v2(128, 2.0, 15, 0.6, Published(88_557_800, 15.4, 83.9, 51.0)),
        "vmamba_base_s1l20": _v2(128, 1.0, 20, 0.5, Published(86_614_504, 15.2, 83.8)),
    },
)
