"""ViM2: the vision network of Behrouz et al. 2024, "MambaMixer" (arXiv 2403.19888).

The four stages of VMamba v0, each a MambaMixer: a channel mixer behind every two token mixers,
which all read weighted averages of what came before in the stage. There is no released code, and
the paper's table of scales contradicts itself: docs/vim2.md says what was chosen here. B batch,
C channels, H W map.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from pydantic import Field
from torch import nn

from cvmh.models.channel_mixer import ChannelForm, ChannelMixer
from cvmh.models.encoders.pyramid import Pyramid
from cvmh.models.encoders.steps import PatchEmbedding
from cvmh.models.encoders.variant import Family, Four, Published, Variant, initialise
from cvmh.models.feature_averaging import AveragedLayers, Start
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.resize import PatchMerging
from cvmh.models.ss2d import SS2D
from cvmh.settings import Settings

# Token mixers in a row, behind which a channel mixer stands.
TOKEN_MIXERS = 2


class ViM2Settings(Settings):
    """What ViM2s differ in; the defaults are ViM2-T."""

    bands: int = Field(3, ge=1)
    width: int = Field(96, ge=2)
    # Token mixers of each stage.
    depths: Four = (2, 2, 6, 2)
    # States of a token mixer, and of a channel mixer.
    d_state: int = Field(16, ge=1)
    channel_states: int = Field(4, ge=1)
    # How the channel mixers of each stage scan, and over how many times its channels.
    channel_forms: tuple[ChannelForm, ChannelForm, ChannelForm, ChannelForm] = (
        "grid",
        "grid",
        "positions",
        "positions",
    )
    channel_expand: Four = (2, 2, 2, 1)
    # How the averages start; see cvmh.models.feature_averaging.
    start: Start = "alternating"
    drop_path: float = Field(0.2, ge=0, lt=1)
    out_indices: tuple[int, ...] = (0, 1, 2, 3)


class ViM2(Pyramid):
    """Encode an image (B, bands, H, W) to maps (B, C 2^i, H / 4 2^i, W / 4 2^i), i from 0 to 3."""

    def __init__(self, settings: ViM2Settings) -> None:
        num_mixers = sum(depth + _num_layers(depth) for depth in settings.depths)
        rates = iter(np.linspace(0, settings.drop_path, num_mixers).tolist())
        super().__init__(
            bands=settings.bands,
            widths=[settings.width * 2**stage for stage in range(4)],
            # A stage is one block to the pyramid, because averages reach over all its layers.
            depths=(1, 1, 1, 1),
            out_indices=settings.out_indices,
            stem=PatchEmbedding(settings.bands, settings.width),
            make_step=PatchMerging,
            make_block=lambda stage, channels, _: _mixed_stage(settings, stage, channels, rates),
            drop_path=0.0,
        )
        self.settings = settings
        self.apply(_initialise)


def _num_layers(depth: int) -> int:
    return -(-depth // TOKEN_MIXERS)


def _mixed_stage(
    settings: ViM2Settings, stage: int, channels: int, rates: Iterator[float]
) -> AveragedLayers:
    mix_tokens = partial(SS2D, paths="ss2d", d_state=settings.d_state)
    mix_channels = partial(
        ChannelMixer,
        inner=settings.channel_expand[stage] * channels,
        form=settings.channel_forms[stage],
        d_state=settings.channel_states,
    )
    depth = settings.depths[stage]
    tokens: list[nn.Module] = []
    channel_mixers: list[nn.Module] = []
    for start in range(0, depth, TOKEN_MIXERS):
        row = [
            MixerBlock(channels, mixer=mix_tokens, drop_path=next(rates))
            for _ in range(start, min(start + TOKEN_MIXERS, depth))
        ]
        tokens.append(nn.Sequential(*row))
        channel_mixers.append(MixerBlock(channels, mixer=mix_channels, drop_path=next(rates)))
    return AveragedLayers(tokens, channel_mixers, start=settings.start)


def _initialise(module: nn.Module) -> None:
    initialise(module)
    # Comes after its parts: torch goes from the leaves up.
    if isinstance(module, ChannelMixer):
        module.reset_lift()


def _scale(width: int, depth: int, drop_path: float, published: Published) -> Variant:
    settings = {"width": width, "depths": (2, 2, depth, 2), "drop_path": drop_path}
    return Variant(settings=settings, published=published)


VIM2 = Family(
    name="ViM2",
    source="Behrouz et al. 2024, arXiv 2403.19888",
    licence="no code and no weights released",
    settings=ViM2Settings,
    encoder=ViM2,
    variants={
        "vim2_tiny": _scale(96, 6, 0.2, Published(20_000_000, None, 82.7, 48.6, is_exact=False)),
        "vim2_small": _scale(96, 18, 0.3, Published(43_000_000, None, 83.7, 50.2, is_exact=False)),
        "vim2_base": _scale(128, 18, 0.6, Published(74_000_000, None, 83.9, is_exact=False)),
    },
)
