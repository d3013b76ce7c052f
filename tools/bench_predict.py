"""Measure `cvmh predict`; print Markdown tables for docs/benchmarks.md.

    python tools/bench_predict.py                      # everything, about twenty minutes
    python tools/bench_predict.py memory sparse        # some parts

Parts: `memory` (tall and wide scenes, --max-memory), `sparse` (200,000 x 200,000 pixels with 40
blocks of data), `efficiency` (against the network alone), `throughput` (a network that costs next
to nothing), `kills` (kill -9 and --resume). Each prediction is a process of its own; its memory is
polled from outside, so that nothing in it can hide a peak. Times are medians of paired runs.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from cvmh.classes import ISPRS
from cvmh.models.bundle import BundleCard, save_bundle
from cvmh.models.zoo import create_model
from cvmh.version import VERSION

BLOCK = 512
TILE = 256
GRID = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.25, 0, 5e5, 0, -0.25, 5.4e6)}
CARD = {
    "classes": ISPRS,
    "band_names": ("red", "green", "blue"),
    "dtype": "uint8",
    "mean": (100.0,) * 3,
    "std": (50.0,) * 3,
    "gsd": 0.25,
    "tile": TILE,
}

# A process that predicts with a network of one 1x1 convolution, as the command does.
PREDICT_STUB = """
import json, sys
import torch
from cvmh import memory
from cvmh.models.bundle import Bundle, BundleCard
from cvmh.predict import predict_raster
memory.keep_freed_memory()
arguments = json.loads(sys.argv[1])
network = torch.nn.Conv2d(3, 6, 1)
for number, values in enumerate(network.parameters()):
    generator = torch.Generator().manual_seed(number)
    values.data = torch.randn(values.shape, generator=generator)
bundle = Bundle(network=network.eval(), card=BundleCard(model="stub", **arguments.pop("card")))
print(memory.resident(), flush=True)
report = predict_raster(arguments.pop("scene"), arguments.pop("output"), bundle, **arguments)
print(json.dumps({"seconds": report.seconds, "busy": report.busy, "spans": report.plan["spans"]}))
"""

# The same network on as many tiles from memory, and nothing else.
NETWORK_ALONE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import torch
from cvmh import memory
from cvmh.models.bundle import load_bundle
memory.keep_freed_memory()
way, tiles, side = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
network = load_bundle(sys.argv[1]).network
def run(batch, threads, workers):
    torch.set_num_threads(threads)
    pixels = torch.rand(batch, 3, side, side)
    def call(number):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            network(pixels)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, range(-(-tiles // batch))))
cores = torch.get_num_threads()
run(8, cores, 1) if way == "batches of 8" else run(2, 1, cores)
"""


class Run(NamedTuple):
    """What a process took: seconds, peak memory above that of the loaded network, its words."""

    seconds: float
    peak: int
    loaded: int
    said: dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {
        "memory": bench_memory,
        "sparse": bench_sparse,
        "efficiency": bench_efficiency,
        "throughput": bench_throughput,
        "kills": bench_kills,
    }
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; default all")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in arguments.parts or parts:
            parts[name](arguments.repeats)
            for path in Path().iterdir():
                path.unlink() if path.is_file() else None


def bench_memory(repeats: int) -> None:
    print("### Memory: a cheap network, 3 bands, tiles of 256, overlap 0.25\n")
    print("| scene | setting | peak above the loaded network | peak of the process | spans | s |")
    print("|---|---|---|---|---|---|")
    for rows, columns in ((5_000, 20_000), (20_000, 20_000), (5_000, 60_000)):
        write_scene("scene.tif", rows, columns)
        limits = (None, 1 << 30) if columns == 20_000 else (1 << 30,)
        masks = set()
        for limit in limits:
            run = predict_stub("scene.tif", f"{limit}.tif", max_memory=limit, overwrite=True)
            setting = "" if limit is None else f"--max-memory {limit >> 20}M"
            print(
                f"| {rows} x {columns} | {setting} | {mib(run.peak - run.loaded)} "
                f"| {mib(run.peak)} | {run.said['spans']} | {run.seconds:.0f} |",
                flush=True,
            )
            masks.add(digest(f"{limit}.tif"))
        if len(limits) > 1:
            print(f"\nSame bytes whatever the limit: {len(masks) == 1}\n", flush=True)


def bench_sparse(repeats: int) -> None:
    print("\n### A sparse scene of 200,000 x 200,000 pixels with 40 blocks of data\n")
    side, rng = 200_000, np.random.default_rng(0)
    places = rng.integers(0, side // BLOCK, (40, 2))
    blocks = rng.integers(0, 250, (40, 3, BLOCK, BLOCK), dtype=np.uint8)
    with open_to_write("scene.tif", side, side, SPARSE_OK=True, BIGTIFF="YES") as scene:
        for (row, column), pixels in zip(places, blocks, strict=True):
            scene.write(pixels, window=Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK))
    run = predict_stub("scene.tif", "mask.tif")
    with rasterio.open("mask.tif") as mask:
        is_right = mask.shape == (side, side)
        found = {}
        for (row, column), pixels in zip(places, blocks, strict=True):
            found[int(row), int(column)] = pixels
        for (row, column), pixels in found.items():
            ids = mask.read(1, window=Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK))
            is_right &= bool((ids == stub_classes(pixels)).all())
        for row, column in rng.integers(0, side // BLOCK, (400, 2)).tolist():
            if (row, column) not in found:
                ids = mask.read(1, window=Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK))
                is_right &= bool((ids == 255).all())
    size = Path("mask.tif").stat().st_size
    print(
        f"{run.seconds:.0f} s, peak {mib(run.peak - run.loaded)} above the loaded network, "
        f"mask of {mib(size)}; right in all blocks of data and in 400 others: {is_right}\n"
    )


def bench_efficiency(repeats: int) -> None:
    print("### The pipeline against the network alone: 4,096 x 4,096 pixels, nano, tiles of 256\n")
    write_scene("scene.tif", 4096, 4096)
    torch.manual_seed(0)
    network = create_model("cvmh_unet_nano")
    save_bundle("nano.safetensors", network, BundleCard(model="cvmh_unet_nano", **CARD))
    tiles = 21 * 21
    ways = {
        "cvmh predict": cvmh("predict", "scene.tif", "-o", "mask.tif", "--overwrite"),
        "batches of 8": alone("batches of 8", tiles),
        "passes of 2": alone("passes of 2", tiles),
    }
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, command in ways.items():
            times[name].append(watch(command).seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(medians["batches of 8"], medians["passes of 2"])
    print("Wall time of whole processes, loading included; `alone` calls the network on 441 tiles")
    print("of random numbers, in batches of 8 on all cores or as `cvmh predict` does.\n")
    print("| process | s | spread | against the faster one alone |")
    print("|---|---|---|---|")
    for name, values in times.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {name} | {medians[name]:.1f} | {spread} | {medians[name] / fastest:.2f} |")
    ratios = [
        one / min(two, three)
        for one, two, three in zip(*(times[name] for name in ways), strict=True)
    ]
    print(f"\nMedian of the paired ratios: {statistics.median(ratios):.2f}\n", flush=True)


def bench_throughput(repeats: int) -> None:
    print("### Reading, blending and writing: a pixel-wise network, 8,192 x 8,192 pixels\n")
    write_scene("scene.tif", 8192, 8192)
    runs = [predict_stub("scene.tif", "mask.tif", overwrite=True) for _ in range(repeats)]
    middle = sorted(runs, key=lambda run: run.said["seconds"])[len(runs) // 2]
    seconds, busy = middle.said["seconds"], middle.said["busy"]
    print(f"{8192**2 / seconds / 1e6:.1f} Mpx/s ({seconds:.2f} s); busy: ", end="")
    print(", ".join(f"{name} {value:.2f} s" for name, value in busy.items()), "\n", flush=True)


def bench_kills(repeats: int) -> None:
    print("### Ten kill -9, each followed by --resume: 1,536 x 1,536 pixels, nano\n")
    write_scene("scene.tif", 1536, 1536)
    torch.manual_seed(0)
    network = create_model("cvmh_unet_nano")
    save_bundle("nano.safetensors", network, BundleCard(model="cvmh_unet_nano", **CARD))
    watch(cvmh("predict", "scene.tif", "-o", "mask.tif"))
    expected, same, kills = digest("mask.tif"), 0, 0
    whole = watch(cvmh("predict", "scene.tif", "-o", "mask.tif", "--overwrite")).seconds
    generator = random.Random(0)
    while kills < 10:
        Path("mask.tif").unlink(missing_ok=True)
        process = subprocess.Popen(cvmh("predict", "scene.tif", "-o", "mask.tif"), **QUIET)
        time.sleep(generator.uniform(0.2, whole))
        if process.poll() is not None:
            process.wait()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        watch(cvmh("predict", "scene.tif", "-o", "mask.tif", "--resume"))
        same += digest("mask.tif") == expected
    print(f"{same} of {kills} masks have the bytes of the uninterrupted run\n", flush=True)


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def predict_stub(scene: str, output: str, **options: object) -> Run:
    arguments = {"scene": scene, "output": output, "card": {**CARD, "classes": ISPRS.to_json()}}
    return watch([sys.executable, "-c", PREDICT_STUB, json.dumps({**arguments, **options})])


def stub_classes(pixels: np.ndarray) -> np.ndarray:
    network = torch.nn.Conv2d(3, 6, 1)
    for number, values in enumerate(network.parameters()):
        values.data = torch.randn(values.shape, generator=torch.Generator().manual_seed(number))
    scaled = (torch.from_numpy(pixels).float() - 100) / 50
    with torch.no_grad():
        return network(scaled[None])[0].argmax(0).numpy()


def cvmh(*words: str) -> list[str]:
    return [sys.executable, "-m", "cvmh.cli.main", *words, "--checkpoint", "nano.safetensors"]


def alone(way: str, tiles: int) -> list[str]:
    return [sys.executable, "-c", NETWORK_ALONE, "nano.safetensors", way, str(tiles), str(TILE)]


def watch(command: list[str]) -> Run:
    """Run a process to its end; poll what memory it holds."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed: {errors}")
    words = output.split("\n")
    is_stub = words[0].isdigit()
    said = json.loads(words[1]) if is_stub else {}
    return Run(seconds, peak, int(words[0]) if is_stub else 0, said)


def resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_to_write(path: str, height: int, width: int, **options: object) -> rasterio.DatasetBase:
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
    return rasterio.open(
        path, "w", driver="GTiff", photometric="RGB", zlevel=1, **size, **tiles, **GRID, **options
    )


def write_scene(path: str, height: int, width: int) -> None:
    """Write fields of about 32 pixels with noise: as hard to pack as a photograph."""
    rng = np.random.default_rng(0)
    with open_to_write(path, height, width, bigtiff="IF_SAFER") as scene:
        for row in range(0, height, BLOCK):
            rows = min(BLOCK, height - row)
            fields = rng.integers(0, 230, (3, rows // 32 + 1, width // 32 + 1), dtype=np.uint8)
            pixels = np.kron(fields, np.ones((1, 32, 32), np.uint8))[:, :rows, :width]
            pixels += rng.integers(0, 24, pixels.shape, dtype=np.uint8)
            scene.write(pixels, window=Window(0, row, width, rows))


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def print_machine() -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    print(f"cvmh {VERSION} ({commit}), torch {torch.__version__}, rasterio {rasterio.__version__}")
    print(f"with GDAL {rasterio.__gdal_version__}; {len(names)} x {names[0]}\n", flush=True)


if __name__ == "__main__":
    main()
