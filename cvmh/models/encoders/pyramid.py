"""Four stages of blocks over maps of falling resolution: VMamba, VSSD and GroupMamba.

B batch, C channels, H W map.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor, nn

from cvmh.errors import ConfigError
from cvmh.models.encoders.encoder import Encoder
from cvmh.models.layers import check_image, pad_below, to_channels_first
from cvmh.models.pruning.course import ReductionCourse
from cvmh.models.pruning.grid import CELL
from cvmh.models.pruning.published import ReductionSettings

STRIDES = (4, 8, 16, 32)
MakeBlock = Callable[[int, int, float], nn.Module]


class Pyramid(Encoder):
    """A stem of stride 4, then stages of blocks, each but the first behind a step of stride 2.

    All maps inside are (B, H, W, C). What lies behind the last map that is returned is left out.
    A LayerNorm stands behind each stage whose map is returned; it is either for those who read the
    map only, or for the next stage too.

    Args:
        bands: of the images.
        widths: channels of the four stages.
        depths: number of blocks of the four stages.
        out_indices: which stages' maps are returned.
        stem: maps (B, bands, H, W) to (B, H / 4, W / 4, C).
        make_step: makes the step of stride 2 from one number of channels to another.
        make_block: makes a block from (stage, channels, rate of stochastic depth).
        drop_path: that rate in the last block; it rises from 0 in the first.
        norm_eps: of the LayerNorms behind the stages.
        is_normed_between: whether the next stage gets the map behind the LayerNorm.
        pruning: leave out cells of 32 pixels by a published method; the blocks know of grids.
    """

    def __init__(
        self,
        *,
        bands: int,
        widths: Sequence[int],
        depths: Sequence[int],
        out_indices: Sequence[int],
        stem: nn.Module,
        make_step: Callable[[int, int], nn.Module],
        make_block: MakeBlock,
        drop_path: float,
        norm_eps: float = 1e-5,
        is_normed_between: bool = False,
        pruning: ReductionSettings | None = None,
    ) -> None:
        super().__init__(bands=bands, widths=widths, strides=STRIDES, out_indices=out_indices)
        self.is_normed_between = is_normed_between
        self.reduction = None if pruning is None else _for_cells(pruning).completed(sum(depths))
        self.stem = stem
        self.num_stages = max(self.out_indices) + 1
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList(
            nn.Sequential(*[make_block(stage, width, next(rates)) for _ in range(depth)])
            if stage < self.num_stages
            else nn.Identity()
            for stage, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )
        self.steps = nn.ModuleList(
            make_step(c, c_out) if stage < self.num_stages else nn.Identity()
            for stage, (c, c_out) in enumerate(pairwise(widths), start=1)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, eps=norm_eps)
            if stage in self.out_indices or (is_normed_between and stage < self.num_stages)
            else nn.Identity()
            for stage, width in enumerate(widths)
        )

    def stages_by_stride(self) -> Mapping[int, Sequence[nn.Module]]:
        """Return the modules of each stride."""
        later = zip(STRIDES[1:], self.steps, list(self.stages)[1:], strict=True)
        return {
            STRIDES[0]: [self.stem, self.stages[0]],
            **{stride: [step, stage] for stride, step, stage in later},
        }

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps (B, C, H / stride, W / stride), finest first.

        Where cells are left out, an image is padded to whole cells by repeating its border.
        """
        check_image(image_BCHW, self.bands)
        if self.reduction is None or self.reduction.is_dense:
            return self._maps(image_BCHW, None)
        height, width = image_BCHW.shape[-2:]
        padded = pad_below(image_BCHW, CELL)
        rows, columns = (size // CELL for size in padded.shape[-2:])
        course = ReductionCourse(
            self.reduction, rows=rows, columns=columns, is_masked=self.training
        )
        maps = self._maps(padded, course)
        pairs = zip(maps, self.strides, strict=True)
        return [x[..., : -(-height // stride), : -(-width // stride)] for x, stride in pairs]

    def _maps(self, image_BCHW: Tensor, course: ReductionCourse | None) -> list[Tensor]:
        x, maps = self.stem(image_BCHW), []
        for index in range(self.num_stages):
            x = self.steps[index - 1](x) if index else x
            stage = self.stages[index]
            x = stage(x) if course is None else course.run(stage.children(), x)
            normed = self.norms[index](x)
            if index in self.out_indices:
                maps.append(to_channels_first(normed))
            if self.is_normed_between:
                x = normed
        return maps


def _for_cells(pruning: ReductionSettings) -> ReductionSettings:
    if pruning.method != "top":
        raise ConfigError(
            f"pruning.method must be top for a network of several resolutions, got "
            f"{pruning.method}, which merges single tokens; take a PlainMamba for it"
        )
    return pruning
