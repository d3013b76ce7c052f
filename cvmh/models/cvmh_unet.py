"""CVMH-UNet: a U-shaped network of CVSS blocks whose skips are MFMS blocks.

Cao et al., "Remote Sensing Image Segmentation Using Vision Mamba and Multi-Scale Multi-Frequency
Feature Fusion" (arXiv 2410.05624; Remote Sensing 2025, 17(8), 1390). B batch, C channels, H W map.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor, nn

from cvmh.config import PruningSettings
from cvmh.errors import ConfigError
from cvmh.models.cvss import CVSSBlock, Stage
from cvmh.models.layers import check_image, pad_below, to_channels_first, to_channels_last
from cvmh.models.mfms import FIXED_SIZES, MFMSBlock, MultiFrequencyBranch, MultiScaleBranch
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning.grid import WHOLE, Grid
from cvmh.models.pruning.learned import ChoosingCourse, Pruner, Trace
from cvmh.models.pruning.scores import Keep, Threshold
from cvmh.models.resize import (
    PATCH,
    ConvHead,
    ConvStem,
    PatchExpanding,
    PatchMerging,
    PatchStem,
    ProjectionHead,
)
from cvmh.models.ss2d import SS2D
from cvmh.settings import Settings

NUM_LEVELS = 4
Four = tuple[int, int, int, int]
FIXED_NEEDS_ALL = 'dct_size "fixed" pools whole maps; set it to "feature", or prune nothing'


class CVMHUNetSettings(Settings):
    """Every switch of CVMH-UNet; the defaults are the paper's network.

    The ablation tables of the paper are ``block`` and ``fusion`` (Table III), ``scan`` (IV),
    ``block`` and ``residual_wrap`` (V), ``fusion`` and ``pool_mixer`` (VI).
    """

    bands: int = Field(3, ge=1)
    num_classes: int = Field(6, ge=1)
    widths: Four = (96, 192, 384, 768)
    encoder_depths: Four = (2, 2, 2, 2)
    # From the deepest level up.
    decoder_depths: Four = (2, 2, 2, 1)
    # Channels at full and half resolution of a convolutional stem and head; None: the paper's patch
    # embedding and final projection.
    stem_widths: tuple[int, int] | None = None
    # "cvss" has the local branch, attentions and E-FFN; "vss" is the plain block of VM-UNet.
    block: Literal["cvss", "vss"] = "cvss"
    residual_wrap: bool = True
    scan: Literal["cs2d", "ss2d"] = "cs2d"
    line_order: Literal["natural", "figure"] = "natural"
    d_state: int = Field(16, ge=1)
    expand: float = Field(2.0, gt=0)
    dt_rank: int | None = Field(None, ge=1)
    # "mfms" multi-frequency gate, "aff" multi-scale gate only, "add" VM-UNet's plain skips.
    fusion: Literal["mfms", "aff", "add"] = "mfms"
    pool_mixer: Literal["conv1d", "fc"] = "conv1d"
    shared_pool_mixer: bool = True
    num_frequencies: int = Field(16, ge=1, le=16)
    dct_size: Literal["feature", "fixed"] = "feature"
    dct_orthonormal: bool = True
    drop_path: float = Field(0.2, ge=0, lt=1)
    # Deviation of the initial weights of Linear layers; None: 1 / sqrt(inputs), which narrow
    # networks need, because 0.02 would all but close their scan branches.
    init_std: float | None = Field(0.02, gt=0)
    # How it chooses cells when it is to compute a share of them; None: it was not trained for it.
    pruning: PruningSettings | None = None

    @model_validator(mode="after")
    def _refuse_what_cannot_prune(self) -> "CVMHUNetSettings":
        if self.pruning is None:
            return self
        if self.dct_size == "fixed":
            raise ValueError(f"pruning is not possible: {FIXED_NEEDS_ALL}")
        if not (self.encoder_depths[0] and self.decoder_depths[0]):
            raise ValueError("pruning needs a block in the finest stage and in the deepest one")
        return self


class CVMHUNet(nn.Module):
    """Segment images (B, bands, H, W) into logits (B, num_classes, H, W), for any H and W >= 1."""

    def __init__(self, settings: CVMHUNetSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.widths
        self.stem, self.head = _ends(settings)
        self.encoder = nn.ModuleList(
            _stages(
                settings,
                widths,
                settings.encoder_depths,
                _rising(settings.encoder_depths, settings),
            )
        )
        self.merge = nn.ModuleList(PatchMerging(c, c_out) for c, c_out in pairwise(widths))
        upwards = widths[::-1]
        falling = _rising(settings.decoder_depths, settings)[::-1]
        self.decoder = nn.ModuleList(_stages(settings, upwards, settings.decoder_depths, falling))
        self.expand = nn.ModuleList(PatchExpanding(c, c_out) for c, c_out in pairwise(upwards))
        self.fuse = nn.ModuleList(_fusion(settings, level) for level in reversed(range(NUM_LEVELS)))
        self.apply(partial(_initialise, std=settings.init_std))
        # Last, so that the other weights start as those of the dense network.
        self.pruner = _pruner(settings)

    @property
    def stride(self) -> int:
        """The multiple to which inputs are padded: the patch times 2 per merging, in pixels."""
        return PATCH * 2 ** (NUM_LEVELS - 1)

    def forward(
        self,
        image_BCHW: Tensor,
        grid: Grid = WHOLE,
        keep: Keep | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Return logits (B, num_classes, H, W) of an image (B, bands, H, W).

        Sizes that are no multiple of :attr:`stride` are padded at the bottom and right by
        repeating the border, and the logits cropped.

        Args:
            image_BCHW: the image.
            grid: which cells are computed; logits of the others are zero.
            keep: the share of these cells, in (0, 1], that the blocks compute, or the score from
                which they do; the network chooses them. At 1 and None nothing is chosen.
            trace: receives which cells were chosen, and why.

        Raises:
            ShapeError: the image has other bands.
            ConfigError: the network was not trained to choose, or it cannot leave out cells.
        """
        check_image(image_BCHW, self.settings.bands)
        self._check(grid, keep)
        height, width = image_BCHW.shape[-2:]
        padded = pad_below(image_BCHW, self.stride)
        x, finer = self.stem(to_channels_first(grid.take(to_channels_last(padded))), grid)
        course = ChoosingCourse(
            self.pruner, grid, keep=keep, is_training=self.training, trace=trace
        )
        skips = []
        for level, stage in enumerate(self.encoder):
            skips.append(x)
            x = course.run(stage, x) if level else course.enter_encoder(stage, x)
            if level < len(self.merge):
                x = self.merge[level](x)
        x, skips, finer = course.turn(x, skips, finer)
        for level, stage in enumerate(self.decoder):
            if level:
                x = self.expand[level - 1](x)
            x = course.run(stage, x) if level else course.enter_decoder(stage, x)
            x = self._fused(level, skips.pop(), x, course.outer)
        logits = course.leave(self.head(x, finer, course.outer))
        return logits[..., :height, :width]

    def _check(self, grid: Grid, keep: Keep | None) -> None:
        share = keep.least if isinstance(keep, Threshold) else keep
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"keep must be above 0 and at most 1, got {share:g}")
        if share is not None and share < 1 and self.pruner is None:
            raise ConfigError(
                f"keep={share:g}: this network was not trained to choose cells; fine-tune it with "
                "cvmh train --init BUNDLE --set pruning={}"
            )
        if grid is not WHOLE and self.settings.dct_size == "fixed":
            raise ConfigError(f"no cells can be left out: {FIXED_NEEDS_ALL}")

    def _fused(self, level: int, skip_BHWC: Tensor, x_BHWC: Tensor, grid: Grid) -> Tensor:
        fused = self.fuse[level](to_channels_first(skip_BHWC), to_channels_first(x_BHWC), grid)
        return to_channels_last(fused)


class AddSkip(nn.Module):
    """Add the encoder's features to the decoder's: the skip of VM-UNet."""

    def forward(self, encoder_BCHW: Tensor, decoder_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Fuse two maps (B, C, H, W) of the same shape to one."""
        return encoder_BCHW + decoder_BCHW


class NoSkip(nn.Module):
    """Leave the encoder's features out, as VM-UNet does at the first level."""

    def forward(self, encoder_BCHW: Tensor, decoder_BCHW: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Return the second of two maps (B, C, H, W)."""
        return decoder_BCHW


def _pruner(settings: CVMHUNetSettings) -> Pruner | None:
    if settings.pruning is None:
        return None
    return Pruner(settings.pruning, widths=settings.widths, num_classes=settings.num_classes)


def _ends(settings: CVMHUNetSettings) -> tuple[nn.Module, nn.Module]:
    bands, channels, num_classes = settings.bands, settings.widths[0], settings.num_classes
    if settings.stem_widths is None:
        return PatchStem(bands, channels), ProjectionHead(channels, num_classes)
    widths = settings.stem_widths
    return ConvStem(bands, channels, widths), ConvHead(channels, widths, num_classes)


def _stages(
    settings: CVMHUNetSettings, widths: Four, depths: Four, rates: list[float]
) -> list[Stage]:
    make_block = {"cvss": CVSSBlock, "vss": MixerBlock}[settings.block]
    mixer: Callable[[int], SS2D] = partial(
        SS2D,
        d_state=settings.d_state,
        expand=settings.expand,
        dt_rank=settings.dt_rank,
        paths=settings.scan,
        line_order=settings.line_order,
    )
    remaining = iter(rates)
    return [
        Stage(
            [make_block(channels, drop_path=next(remaining), mixer=mixer) for _ in range(depth)],
            residual_wrap=settings.residual_wrap,
        )
        for channels, depth in zip(widths, depths, strict=True)
    ]


def _rising(depths: Four, settings: CVMHUNetSettings) -> list[float]:
    return [float(rate) for rate in np.linspace(0, settings.drop_path, sum(depths))]


def _fusion(settings: CVMHUNetSettings, level: int) -> nn.Module:
    channels = settings.widths[level]
    if settings.fusion == "add":
        return AddSkip() if level else NoSkip()
    if settings.fusion == "aff":
        return MFMSBlock(channels, MultiScaleBranch(channels))
    return MFMSBlock(
        channels,
        MultiFrequencyBranch(
            channels,
            num_frequencies=settings.num_frequencies,
            mixer=settings.pool_mixer,
            shared_mixer=settings.shared_pool_mixer,
            fixed_size=FIXED_SIZES[level] if settings.dct_size == "fixed" else None,
            orthonormal=settings.dct_orthonormal,
        ),
    )


def _initialise(module: nn.Module, *, std: float | None) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std or module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
