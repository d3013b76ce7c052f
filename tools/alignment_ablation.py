"""Score the aligned scan of kept tokens against closed ranks, on a made task of distances.

    python tools/alignment_ablation.py

Tokens of noise, a few of them markers; the class of a token is how long ago, as one reads the map
row by row, the last marker stood: near, middle or far. Nothing but scans mixes tokens, so that the
state must carry the distance. A network learns this on whole maps. Then tokens other than markers
are left out at random, before the first block, and what is kept is scored: by the network as it is,
and after equally many steps of fine-tuning for each alignment at each share. Kept tokens alone are
computed in training too; for "gap" their values and gradients are those of masks in whole maps.
"""

import argparse
import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from trials import circumstances, mean_and_spread

from cvmh.classes import ClassTable, SegClass
from cvmh.metrics import score
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning import WHOLE, CellGrid, Grid
from cvmh.models.pruning.cells import Alignment
from cvmh.models.ss2d import SS2D

SIDE = 16
BANDS, CHANNELS, STATES = 4, 16, 8
MARKERS, NOISE = 0.08, 0.1
# Tokens behind a marker from which on it is middle, and far: classes are about equally large.
BORDERS = (4, 12)
CLASSES = ClassTable(
    tuple(
        SegClass(id=number, name=name, rgb=(80 * number, 0, 0))
        for number, name in enumerate(("near", "middle", "far"))
    )
)
ALIGNMENTS: tuple[Alignment, ...] = ("gap", "none")
BATCH, NUM_SCORED = 16, 128
COLUMNS = (
    "keep",
    "dense, all tokens",
    "E1",
    "closed ranks",
    "tuned for E1: E1",
    "tuned for E1: closed ranks",
    "tuned for closed ranks: closed ranks",
)
# Learning rates of the first training and of the fine-tuning.
FIRST, FINER = 5e-3, 2e-3


class Maps(NamedTuple):
    """Tokens (B, H, W, bands), their classes (B, H, W), and which of them stay (B, H, W)."""

    tokens: Tensor
    labels: Tensor
    kept: Tensor


class ScanNetwork(nn.Module):
    """Blocks of VMamba v0 (VM-UNet's VSS) whose convolutions are 1x1, between two projections."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(BANDS, CHANNELS)
        mixer = partial(SS2D, paths="ss2d", conv_size=1, d_state=STATES)
        self.blocks = nn.ModuleList(MixerBlock(CHANNELS, mixer=mixer) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, len(CLASSES)))

    def forward(self, tokens_BHWC: Tensor, grid: Grid = WHOLE) -> Tensor:
        """Map (B, H, W, bands) to logits (B, H, W, classes), zero at tokens that are left out."""
        x = grid.take(self.embed(tokens_BHWC))
        for block in self.blocks:
            x = block(x, grid)
        return grid.put(self.head(x))


def draw(generator: torch.Generator, *, keep: float, number: int = BATCH) -> Maps:
    """Draw maps of which markers and a share of the other tokens stay."""
    shape = number, SIDE, SIDE
    is_marker = torch.rand(shape, generator=generator) < MARKERS
    tokens = NOISE * torch.randn(*shape, BANDS, generator=generator)
    tokens[..., 0] += is_marker
    place = torch.arange(SIDE * SIDE)
    # Before the first marker it is far.
    last = torch.where(is_marker.flatten(1), place, -max(BORDERS)).cummax(1).values
    labels = torch.bucketize(place - last, torch.tensor(BORDERS), right=True).view(shape)
    return Maps(tokens, labels, is_marker | (torch.rand(shape, generator=generator) < keep))


def train(
    network: ScanNetwork, *, alignment: Alignment, keep: float, steps: int, rate: float, seed: int
) -> ScanNetwork:
    """Train the network on kept tokens, and return it."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    for _ in range(steps):
        maps = draw(generator, keep=keep)
        logits = network(maps.tokens, CellGrid(maps.kept, alignment=alignment))
        loss = functional.cross_entropy(logits[maps.kept], maps.labels[maps.kept])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network


def mean_iou(network: ScanNetwork, *, alignment: Alignment | None, keep: float) -> float:
    """Return the mIoU in % of kept tokens, of maps that are always the same; None: dense."""
    maps = draw(torch.Generator().manual_seed(2**31), keep=keep, number=NUM_SCORED)
    grid = WHOLE if alignment is None else CellGrid(maps.kept, alignment=alignment)
    with torch.inference_mode():
        found = network(maps.tokens, grid).argmax(-1)[maps.kept]
    pairs = len(CLASSES) * maps.labels[maps.kept] + found
    counts = torch.bincount(pairs, minlength=len(CLASSES) ** 2).view(len(CLASSES), -1).numpy()
    value = score(counts, CLASSES, protocol="full", split="made").miou
    assert value is not None, "tokens are kept"
    return 100 * float(value)


def trained(seed: int, *, steps: int) -> ScanNetwork:
    """Return a network that has learned whole maps."""
    torch.manual_seed(seed)
    return train(ScanNetwork(), alignment="gap", keep=1, steps=steps, rate=FIRST, seed=seed)


def scores_of(dense: ScanNetwork, keep: float, *, steps: int, seed: int) -> list[float]:
    """Return the mIoU of a seed for each of the columns."""
    tuned = {
        alignment: train(
            copy.deepcopy(dense),
            alignment=alignment,
            keep=keep,
            steps=steps,
            rate=FINER,
            # Other maps than the first training's, the same for all alignments.
            seed=1000 + seed,
        )
        for alignment in ALIGNMENTS
    }
    ways: tuple[tuple[ScanNetwork, Alignment | None], ...] = (
        (dense, None),
        (dense, "gap"),
        (dense, "none"),
        (tuned["gap"], "gap"),
        (tuned["gap"], "none"),
        (tuned["none"], "none"),
    )
    return [mean_iou(network, alignment=alignment, keep=keep) for network, alignment in ways]


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    networks = {seed: trained(seed, steps=options.steps) for seed in options.seeds}
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for keep in options.keep:
        scores = [
            scores_of(network, keep, steps=options.tuning, seed=seed)
            for seed, network in networks.items()
        ]
        cells = [mean_and_spread(list(column)) for column in zip(*scores, strict=True)]
        print(f"| {keep:g} | {' | '.join(cells)} |", flush=True)
    print(
        f"\nmIoU % of kept tokens, mean and standard deviation over seeds {options.seeds}; "
        f"{options.steps} steps on whole maps, {options.tuning} of tuning. {circumstances()}."
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=float, nargs="+", default=[1, 0.9, 0.7, 0.5, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of the training on whole maps")
    parser.add_argument("--tuning", type=int, default=300, help="steps of each fine-tuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
