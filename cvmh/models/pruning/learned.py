"""Learned pruning: a network looks at all cells of a tile once, and goes on with the best.

What is left out keeps the features that it has, gets learned ones, or leaves the network with the
answers of an auxiliary head. B tiles, N maps in memory, C channels, H W map, G cells along a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.config import PruningSettings
from cvmh.models.cvss import Stage
from cvmh.models.layers import to_channels_first, to_channels_last
from cvmh.models.pruning.cells import CellGrid
from cvmh.models.pruning.grid import CELL, Grid
from cvmh.models.pruning.masked import MaskedGrid
from cvmh.models.pruning.scores import (
    Keep,
    Meter,
    Threshold,
    best_cells,
    count_best,
    count_kept,
    highest_in_cells,
    in_full_blocks,
)
from cvmh.models.resize import PATCH, Finer

# Tokens along a side of a cell at the finest and at the deepest level.
FINEST, DEEPEST = CELL // PATCH, 1


@dataclass(kw_only=True)
class Trace:
    """What a pass finds on its way, for those who hand it in.

    ``encoder`` and ``decoder`` are the cells that blocks computed, once they were chosen,
    ``counts_B`` how many they were of each tile, and ``score_BGG`` what the encoder's were chosen
    by, lowest where there is no cell. A list of ``answers``, if there is one, receives those of the
    auxiliary heads, logits (B, classes, H, W) of the padded image.
    """

    encoder: Grid | None = None
    decoder: Grid | None = None
    counts_B: Tensor | None = None
    score_BGG: Tensor | None = None
    answers: list[Tensor] | None = None


class Pruner(nn.Module):
    """The weights that a network needs, beside those of the dense one, to leave out cells.

    Args:
        settings: how cells are scored, and what stands in for those that are left out.
        widths: channels of each level, the finest first.
        num_classes: of the network.
    """

    def __init__(
        self, settings: PruningSettings, *, widths: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.settings = settings
        entries = [widths[0]] if settings.has_heads else []
        if settings.score == "confidence" and settings.reinsert != "exit":
            # Cells are chosen a second time, from the deepest tokens.
            entries.append(widths[-1])
        self.heads = nn.ModuleList(nn.Linear(channels, num_classes) for channels in entries)
        nulls = widths if settings.reinsert == "null" else ()
        self.null = nn.ParameterList(torch.zeros(channels) for channels in nulls)

    def forget(self, x_NHWC: Tensor, level: int, inner: Grid, outer: Grid) -> Tensor:
        """Return tokens on the outer grid, with a level's null token for those left out."""
        token = self.null[level].to(x_NHWC.dtype).expand_as(x_NHWC)
        if inner is outer:
            # It stands nowhere, but processes that train together wait for its gradient.
            return x_NHWC.where(torch.ones((), dtype=torch.bool, device=x_NHWC.device), token)
        return inner.put(inner.take(x_NHWC, outer), token, outer)


class ChoosingCourse:
    """One pass of tokens through the stages of a network, of which some compute chosen cells only.

    Args:
        pruner: of the network; None: nothing is chosen.
        grid: the cells that there are.
        keep: the share of them that is chosen, or the score that they need; None: all.
        is_training: cells are then left out by masking maps.
        trace: receives what is found on the way.
    """

    def __init__(
        self,
        pruner: Pruner | None,
        grid: Grid,
        *,
        keep: Keep | None,
        is_training: bool,
        trace: Trace | None,
    ) -> None:
        self.pruner, self.is_training = pruner, is_training
        self.is_traced, self.trace = trace is not None, trace or Trace()
        self.keep: Keep = 1.0 if keep is None else keep
        self.counts_B: Tensor | None = None
        # The cells that there are; those of merging, expanding, skips and head; of the blocks.
        self.entered = self.outer = self.inner = grid
        self._answers_NHWC: Tensor | None = None

    def run(self, stage: nn.Module, x_NHWC: Tensor) -> Tensor:
        """Map tokens by a stage, which computes the chosen ones; the others stay as they are."""
        if self.inner is self.outer:
            y: Tensor = stage(x_NHWC, self.outer)
            return y
        y = stage(self.inner.take(x_NHWC, self.outer), self.inner)
        return self.inner.put(y, x_NHWC, self.outer)

    def enter_encoder(self, stage: nn.Module, x_NHWC: Tensor) -> Tensor:
        """Map tokens by the finest stage, where cells are chosen."""
        x_NHWC = self._choose(stage, x_NHWC, head=0, side=FINEST)
        self.trace.encoder = self.inner
        return x_NHWC

    def turn(
        self, x_NHWC: Tensor, skips: list[Tensor], finer: Finer
    ) -> tuple[Tensor, list[Tensor], Finer]:
        """Return what the decoder gets for what the encoder gave."""
        inner, outer = self.inner, self.outer
        if self.pruner is None or (inner is outer and not self.is_training):
            return x_NHWC, skips, finer
        if self.pruner.settings.reinsert == "null":
            skips = [self.pruner.forget(y, level, inner, outer) for level, y in enumerate(skips)]
            x_NHWC = self.pruner.forget(x_NHWC, -1, inner, outer)
        elif self.pruner.settings.reinsert == "exit":
            self.outer = inner
            x_NHWC, *skips = (inner.take(y, outer) for y in (x_NHWC, *skips))
            finer = tuple(to_channels_first(inner.take(to_channels_last(y), outer)) for y in finer)
        return x_NHWC, skips, finer

    def enter_decoder(self, stage: nn.Module, x_NHWC: Tensor) -> Tensor:
        """Map tokens by the deepest stage, where cells are chosen anew, of all that have not left.

        A cell that the encoder has left out can so return.
        """
        if self.pruner is not None and self.pruner.settings.reinsert == "exit":
            x_NHWC = self.run(stage, x_NHWC)
        else:
            self.inner = self.outer
            x_NHWC = self._choose(stage, x_NHWC, head=1, side=DEEPEST)
        self.trace.decoder = self.inner
        return x_NHWC

    def leave(self, logits_NCHW: Tensor) -> Tensor:
        """Return the logits of whole maps (B, classes, H, W), zero where there are no cells."""
        logits = to_channels_last(logits_NCHW)
        if self.outer is not self.entered:
            assert self._answers_NHWC is not None
            answers = enlarged(self._answers_NHWC, FINEST).to(logits.dtype)
            logits = self.outer.put(logits, answers, self.entered)
        return to_channels_first(self.entered.put(logits))

    def _choose(self, stage: nn.Module, x_NHWC: Tensor, *, head: int, side: int) -> Tensor:
        """Run a stage on the cells with the best scores; on all up to where they are scored."""
        assert isinstance(stage, Stage)
        if self.pruner is None or (self.keep == 1 and not self.is_traced):
            return stage(x_NHWC, self.outer)
        begun, tokens = self._look(stage, x_NHWC)
        for layer in self.pruner.heads[head : head + 1]:
            answers = layer(begun)
            tokens = doubt(answers) if tokens is None else tokens
            self._hear(answers, side)
        assert tokens is not None, "without heads there are scores of scans"
        self.inner = self._best(*scored(tokens, self.outer, side))
        if begun is x_NHWC:
            return self.run(stage, x_NHWC)
        if self.inner is self.outer:
            return stage.finish(x_NHWC, begun, self.outer)
        if len(stage.blocks) == 1:
            return begun
        start, x_NHWC = (self.inner.take(y, self.outer) for y in (x_NHWC, begun))
        return self.inner.put(stage.finish(start, x_NHWC, self.inner), begun, self.outer)

    def _best(self, score_BGG: Tensor, active_BGG: Tensor) -> Grid:
        """Return the cells with the best scores; the decoder computes as many as the encoder."""
        if self.counts_B is None:
            self.counts_B = count_best(score_BGG, active_BGG, self.keep)
            self.trace.score_BGG, self.trace.counts_B = score_BGG, self.counts_B
        outer, counts_B = self.outer, self.counts_B
        most = outer.num_cells if isinstance(outer, CellGrid) else active_BGG[0].numel()
        if isinstance(self.keep, Threshold):
            size = size_beside(int(counts_B.amax()), most, len(counts_B))
            # Dense kernels give other last bits, and whether they ran would hang on all tiles.
            is_all = len(counts_B) == 1 and torch.equal(counts_B, active_BGG.flatten(1).sum(1))
        else:
            # Known without waiting for a GPU.
            size = count_kept(most, self.keep)
            is_all = size == most
        if is_all:
            return outer
        kept_BGG = best_cells(score_BGG, active_BGG, counts_B)
        return chosen(kept_BGG, outer, size, self.is_training)

    def _look(self, stage: Stage, x_NHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the tokens by which cells are scored, and their scores, unless heads give them."""
        assert self.pruner is not None
        score = self.pruner.settings.score
        if self.pruner.settings.at == "block":
            meter = Meter(score)
            return stage.begin(x_NHWC, self.outer, meter), meter.tokens_NHW
        with torch.no_grad():
            tokens = None if score == "confidence" else stage.steps(x_NHWC, self.outer)
        return x_NHWC, tokens

    def _hear(self, answers_NHWC: Tensor, side: int) -> None:
        if side == FINEST:
            self._answers_NHWC = answers_NHWC
        if self.trace.answers is not None:
            maps = self.entered.put(enlarged(answers_NHWC, side))
            self.trace.answers.append(to_channels_first(maps))


def size_beside(count: int, most: int, num_tiles: int) -> int:
    """Return how many cells of each tile are computed, so that no tile changes another's bits.

    Blocks are full, which may take padding; where blocks are longer than tiles, the size is fixed.

    Args:
        count: the cells of the tile that keeps most.
        most: the cells that there are.
        num_tiles: of the pass.
    """
    if num_tiles == 1:
        return min(most, in_full_blocks(count, 1))
    return most if in_full_blocks(1, num_tiles) > most else in_full_blocks(count, num_tiles)


def doubt(logits_NHWC: Tensor) -> Tensor:
    """Return one minus the highest probability of each token: (N, H, W), without a gradient."""
    return 1 - logits_NHWC.detach().float().softmax(-1).amax(-1)


def scored(tokens_NHW: Tensor, outer: Grid, side: int) -> tuple[Tensor, Tensor]:
    """Return the scores of the cells of a grid, lowest where there is none, and which there are.

    Args:
        tokens_NHW: the score of each token on the grid.
        outer: the grid.
        side: tokens along a side of a cell.
    """
    cells = highest_in_cells(tokens_NHW, side)[..., None]
    active_BGG = outer.put(torch.ones_like(cells, dtype=torch.bool))[..., 0]
    return outer.put(cells)[..., 0].masked_fill(~active_BGG, -torch.inf), active_BGG


def chosen(kept_BGG: Tensor, outer: Grid, size: int, is_training: bool) -> Grid:
    """Return the grid of kept cells, of the kind of the grid that they were chosen of.

    Of a whole map it is masks in training, and kept cells alone otherwise, so many of each tile.
    """
    if isinstance(outer, CellGrid):
        return CellGrid(kept_BGG, size=size, alignment=outer.alignment)
    if isinstance(outer, MaskedGrid) or is_training:
        return MaskedGrid(kept_BGG)
    return CellGrid(kept_BGG, size=size)


def enlarged(x_NHWC: Tensor, side: int) -> Tensor:
    """Return maps at the resolution of the image, interpolated within each cell.

    Beyond a cell nothing is looked at, so that the values are the same on every grid.

    Args:
        x_NHWC: maps of whole cells.
        side: tokens along a side of a cell.
    """
    cells = x_NHWC.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(0, 1, 3, 5, 2, 4)
    large = functional.interpolate(
        cells.flatten(0, 2), size=(CELL, CELL), mode="bilinear", align_corners=False
    )
    large = large.unflatten(0, cells.shape[:3]).permute(0, 1, 4, 2, 5, 3)
    return large.flatten(3, 4).flatten(1, 2)
