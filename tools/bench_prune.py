"""Measure token pruning; print Markdown tables for docs/benchmarks.md.

    python tools/bench_prune.py --what nodata
    python tools/bench_prune.py --what learned --data ROOT --dense BUNDLE --pruned BUNDLE \
        --smaller BUNDLE --plot docs/pruning.svg

`nodata`: whole predictions of scenes of which half the cells hold no data, with `--prune off` and
with `--prune nodata`, and of the same scene full of data. Ways take turns, each runs once untimed
before, and processor seconds of the process count, so that what else the machine does matters
little; ratios are medians of those within a turn. `learned`: what `pruned_networks.py` says.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from pruned_networks import add_options, bench_learned
from torch.nn import functional
from trials import circumstances

from cvmh.classes import ISPRS
from cvmh.memory import keep_freed_memory
from cvmh.models.bundle import Bundle, BundleCard
from cvmh.models.pruning import CELL
from cvmh.models.zoo import create_model
from cvmh.predict import PredictionReport, predict_raster

TILE = 256
# Presets, and the side of a scene that takes each long enough, in pixels.
SIDES = {"cvmh_unet_nano": 3072, "cvmh_unet": 1280}
GRID = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.25, 0, 5e5, 0, -0.25, 5.4e6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", choices=tuple(WHAT), default=["nodata"])
    parser.add_argument("--models", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_options(parser)
    arguments = parser.parse_args()
    # As the command line does.
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    print(f"{circumstances()}; {arguments.threads} threads\n", flush=True)
    for name in arguments.what:
        WHAT[name](arguments)


def bench_nodata(arguments: argparse.Namespace) -> None:
    print("### Scenes of which half the cells hold no data: tiles of 256, overlap 0.25\n")
    print(
        "| network | no data | tiles run dense, pruned | cells computed | off: s | nodata: s ",
        end="",
    )
    print("| nodata / off | nodata / full scene |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            bundle, side = make_bundle(model), SIDES[model]
            for name, has_data in holes(side).items():
                full = write_scene(Path(folder, "full.tif"), np.ones_like(has_data))
                scene = write_scene(Path(folder, "scene.tif"), has_data)
                ways = {"off": (scene, "off"), "nodata": (scene, "nodata"), "full": (full, "off")}
                times, report = race(bundle, ways, arguments.repeats)
                print_row(model, name, times, report)


def print_row(
    model: str, name: str, times: dict[str, list[float]], report: PredictionReport
) -> None:
    pruning = report.pruning
    assert pruning is not None
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    ratios = [ratio(times["nodata"], times[way]) for way in ("off", "full")]
    print(
        f"| {model} | {name} | {pruning.tiles_dense}, {pruning.tiles_pruned} "
        f"| {pruning.mean_kept_share:.0%} | {medians['off']:.2f} | {medians['nodata']:.2f} "
        f"| {ratios[0]} | {ratios[1]} |",
        flush=True,
    )


def race(
    bundle: Bundle, ways: dict[str, tuple[Path, str]], repeats: int
) -> tuple[dict[str, list[float]], PredictionReport]:
    """Return processor seconds of each way, turn by turn, and the report of the pruned one."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, (scene, prune) in ways.items():
            mask = scene.with_name("mask.tif")
            started = time.process_time()
            report = predict_raster(scene, mask, bundle, prune=prune, overwrite=True)
            if turn:
                times[way].append(time.process_time() - started)
            if way == "nodata":
                pruned = report
    return times, pruned


def ratio(seconds: list[float], others: list[float]) -> str:
    """Return the median of the ratios, and the smallest and the largest."""
    found = sorted(one / other for one, other in zip(seconds, others, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def holes(side: int) -> dict[str, NDArray[np.bool_]]:
    """Return where scenes hold data, for each kind of holes."""
    cells = side // CELL
    order = np.random.default_rng(0).permutation(cells**2).reshape(cells, cells)
    scattered = np.kron(order % 2, np.ones((CELL, CELL), int)).astype(bool)
    noise = torch.randn(1, 1, side // TILE, side // TILE, generator=torch.manual_seed(0))
    height = functional.interpolate(noise, (side, side), mode="bicubic")[0, 0]
    return {
        "one diagonal half": np.tri(side, dtype=bool),
        "clouds of some 300 px": (height > height.median()).numpy(),
        "scattered cells": scattered,
    }


def write_scene(path: Path, has_data: NDArray[np.bool_]) -> Path:
    pixels = np.random.default_rng(0).integers(1, 250, (3, *has_data.shape), dtype=np.uint8)
    height, width = has_data.shape
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **size, **GRID) as scene:
        scene.write(np.where(has_data, pixels, 0))
    return path


def make_bundle(model: str) -> Bundle:
    """Return a bundle of random weights: they change no time."""
    torch.manual_seed(0)
    network = create_model(model, bands=3, num_classes=len(ISPRS)).eval()
    card = BundleCard(
        model=model,
        classes=ISPRS,
        band_names=("red", "green", "blue"),
        dtype="uint8",
        mean=(100.0,) * 3,
        std=(50.0,) * 3,
        gsd=0.25,
        tile=TILE,
    )
    return Bundle(network=network, card=card)


WHAT = {"nodata": bench_nodata, "learned": bench_learned}

if __name__ == "__main__":
    main()
