"""Networks that choose their cells, against dense ones: scores, time and FLOPs, for bench_prune.

Each network scores the validation tiles of a data set whole; the pruned one at several shares of
kept cells, as it is, and with naive compaction, where scans let what is kept close ranks. Times are
processor seconds of one thread, medians of contenders that take turns on the same batch: of a
whole pass, and of what lies between stem and head. FLOPs are those of matrix products,
convolutions and scans; depth-wise convolutions of kept cells are not seen by the counter.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.config import DataSettings, ModelSettings, RunConfig
from cvmh.datasets import open_data, prepare_training
from cvmh.metrics import score
from cvmh.models.bundle import Bundle, load_bundle
from cvmh.models.cost import OperatorCounter
from cvmh.models.folding import fold_norms
from cvmh.models.pruning import CELL, CellGrid

Way = Callable[[Tensor], Tensor]


class Contender(NamedTuple):
    """A way to run a network, and what stands in its row."""

    name: str
    keep: float
    network: nn.Module
    way: Way


class Result(NamedTuple):
    """Seconds of a tile, of what lies between stem and head, FLOPs of a tile, and mIoU in %."""

    whole: float
    inner: float
    flops: float
    miou: float


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pruned", type=Path, metavar="BUNDLE", help="for learned: fine-tuned")
    parser.add_argument("--dense", type=Path, metavar="BUNDLE", help="what it was tuned from")
    parser.add_argument("--smaller", type=Path, nargs="*", default=[], metavar="BUNDLE")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="for learned: a folder data set")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.85, 0.7, 0.5, 0.3])
    parser.add_argument("--batch", type=int, default=2, help="tiles that share a pass")
    parser.add_argument("--plot", type=Path, metavar="SVG")


def bench_learned(arguments: argparse.Namespace) -> None:
    if not (arguments.pruned and arguments.dense and arguments.data):
        raise SystemExit("--what learned needs --pruned, --dense and --data")
    torch.set_num_threads(1)
    contenders = make_contenders(arguments)
    bundle = load_bundle(arguments.dense)
    tiles = validation_tiles(arguments.data, bundle)
    images = torch.cat([image for image, _ in tiles])[: arguments.batch]
    times = take_turns(contenders, images, arguments.repeats)
    print(f"### Chosen cells: {arguments.data.name}, {len(images)} tiles a pass, one thread\n")
    print("| network | kept | GFLOPs | ms a tile | speed | between stem and head | speed | mIoU |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    for contender, (whole, inner) in zip(contenders, times, strict=True):
        miou = 100 * mean_iou(contender.way, tiles, bundle.card.classes)
        result = Result(whole, inner, count_flops(contender.way, images), miou)
        results.append(result)
        print(
            f"| {contender.name} | {contender.keep:g} | {result.flops / 1e9:.3f} "
            f"| {1e3 * whole:.1f} | {times[0][0] / whole:.2f} "
            f"| {1e3 * inner:.1f} | {times[0][1] / inner:.2f} | {miou:.2f} |",
            flush=True,
        )
    if arguments.plot:
        plot(contenders, results, arguments.plot)


def make_contenders(arguments: argparse.Namespace) -> list[Contender]:
    dense, pruned = map(load_as_predicted, (arguments.dense, arguments.pruned))
    contenders = [Contender("dense", 1, dense, dense)]
    for path in arguments.smaller:
        network = load_as_predicted(path)
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        contenders.append(Contender(f"smaller, {count:.1f} M", 1, network, network))
    contenders.append(Contender("fine-tuned", 1, pruned, pruned))
    for keep in arguments.keep:
        contenders.append(Contender("fine-tuned", keep, pruned, partial(pruned, keep=keep)))
    for keep in arguments.keep:
        way = partial(close_ranks, pruned, keep)
        contenders.append(Contender("naive compaction", keep, pruned, way))
    return contenders


def load_as_predicted(path: Path) -> nn.Module:
    return fold_norms(load_bundle(path).network)


def close_ranks(network: nn.Module, keep: float, images: Tensor) -> Tensor:
    rows, columns = (-(-side // CELL) for side in images.shape[-2:])
    every = torch.ones(len(images), rows, columns, dtype=torch.bool)
    return network(images, CellGrid(every, alignment="none"), keep=keep)


def validation_tiles(root: Path, bundle: Bundle) -> list[tuple[Tensor, Tensor]]:
    settings = DataSettings(dataset="folder", root=root, tile=bundle.card.tile, batch=1, workers=0)
    config = RunConfig(model=ModelSettings(name=bundle.card.model), data=settings)
    loader = prepare_training(open_data(settings), config).val_loader
    assert loader is not None, "the settings name a validation split"
    return [(image, label) for image, label, _ in loader]


def take_turns(
    contenders: list[Contender], images: Tensor, repeats: int
) -> list[tuple[float, float]]:
    """Return the median seconds of a tile, whole and between stem and head."""
    marks: dict[str, float] = {}
    for network in {id(one.network): one.network for one in contenders}.values():
        stem, head = network.get_submodule("stem"), network.get_submodule("head")
        stem.register_forward_hook(lambda *_: marks.update(begun=time.process_time()))
        head.register_forward_pre_hook(lambda *_: marks.update(ended=time.process_time()))
    times: list[list[tuple[float, float]]] = [[] for _ in contenders]
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for contender, found in zip(contenders, times, strict=True):
                started = time.process_time()
                contender.way(images)
                whole = time.process_time() - started
                if turn:
                    found.append((whole, marks["ended"] - marks["begun"]))
    medians = [[statistics.median(part) for part in zip(*found, strict=True)] for found in times]
    return [(whole / len(images), inner / len(images)) for whole, inner in medians]


def mean_iou(way: Way, tiles: list[tuple[Tensor, Tensor]], classes: ClassTable) -> float:
    count = len(classes)
    counts = np.zeros((count, count), dtype=np.int64)
    with torch.inference_mode():
        for images, labels in tiles:
            found = way(images).argmax(1)
            is_labelled = labels != NODATA_ID
            pairs = labels[is_labelled].long() * count + found[is_labelled]
            counts += torch.bincount(pairs, minlength=count**2).view(count, count).numpy()
    value = score(counts, classes, protocol="full", split="val").miou
    assert value is not None, "the split has labels"
    return float(value)


def count_flops(way: Way, images: Tensor) -> float:
    # In inference mode matrix products would hide inside of Linear layers.
    with torch.no_grad(), OperatorCounter() as counter:
        way(images)
    return (counter.macs + counter.scan_flops) / len(images)


def plot(contenders: list[Contender], results: list[Result], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(contender.name for contender in contenders):
        pairs = zip(contenders, results, strict=True)
        points = [(1e3 * one.whole, one.miou) for found, one in pairs if found.name == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="ms a tile, one thread", ylabel="mIoU %, validation split")
    axes.legend()
    figure.savefig(path)
