"""Time encoders against VMamba's published way to scan on a CPU; print a table for docs.

    python tools/bench_encoders.py                       # 224x224: ten minutes, the loop's backward
    python tools/bench_encoders.py --size 64 --repeats 3

The published way is VMamba-T s1l8 itself with the fallback that its code runs without CUDA: a loop
over steps that indexes tensors (B, D, L, N), channels first, decays of all steps made before. All
run in float32 on one thread, with the same weights, and must give the same maps. Contenders take
turns; medians count. The loop runs forward at most three times, and once where it is trained.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Callable
from unittest import mock

import torch
from bench_scan import clock, print_machine, published_scan
from torch import Tensor, nn
from torch.nn import functional

from cvmh.memory import keep_freed_memory
from cvmh.models.encoders import create_encoder
from cvmh.ops.arguments import ScanArguments
from cvmh.ops.selective_scan import BACKEND_VARIABLE, BACKENDS

PUBLISHED = "VMamba-T s1l8, published loop"
# What is timed against it.
ENCODERS = ("vmamba_tiny_s1l8", "vssd_tiny")
# Share of a map's deviation by which sums in another order may differ.
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="height and width of the image")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    print_machine("cpu")
    image = torch.randn(
        1, 3, arguments.size, arguments.size, generator=torch.Generator().manual_seed(0)
    )
    ways = make_ways(image)
    print(f"{arguments.size}x{arguments.size} pixels, one image, one thread\n")
    print("| pass | network | seconds | published / this |\n|---|---|---|---|")
    for what in ("forward", "forward + backward"):
        times = take_turns(ways, arguments.repeats, is_trained=what != "forward")
        for name, seconds in times.items():
            ratio = times[PUBLISHED] / seconds
            print(f"| {what} | {name} | {seconds:.3f} | {ratio:.1f} |", flush=True)


def make_ways(image: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return each contender as a function that gives the sum of its maps."""
    encoders: dict[str, nn.Module] = {}
    for name in ENCODERS:
        torch.manual_seed(0)
        encoders[name] = create_encoder(name, drop_path=0.0)
    first = encoders[ENCODERS[0]]

    def published() -> Tensor:
        with (
            mock.patch.dict(BACKENDS, {"published": loop}),
            mock.patch.dict(os.environ, {BACKEND_VARIABLE: "published"}),
        ):
            return first(image)[-1]

    with torch.no_grad():
        expected = first(image)[-1]
        error = float((published() - expected).abs().max() / expected.std())
    if error > TOLERANCE:
        sys.exit(f"the published loop differs from ours by {error:.1e} of the maps' deviation")
    ways: dict[str, Callable[[], Tensor]] = {PUBLISHED: published}
    for name, encoder in encoders.items():
        ways[name] = lambda encoder=encoder: encoder(image)[-1]  # type: ignore[misc]
    return ways


def loop(arguments: ScanArguments) -> Tensor:
    """Scan a square map along rows and columns, to and fro, as the published fallback does."""
    dt = arguments.dt
    if arguments.dt_weight is not None:
        dt = torch.einsum("bklr,krd->bkld", dt, arguments.dt_weight)
    if arguments.dt_bias is not None:
        dt = dt + arguments.dt_bias[:, None]
    if arguments.dt_softplus:
        dt = functional.softplus(dt)
    assert arguments.D is not None
    side = math.isqrt(arguments.x.shape[1])
    given = (arguments.x, dt, arguments.A, arguments.B, arguments.C, arguments.D)
    return published_scan(*given, side=side)


def take_turns(
    ways: dict[str, Callable[[], Tensor]], repeats: int, *, is_trained: bool
) -> dict[str, float]:
    """Return the median seconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            is_loop = name == PUBLISHED
            if is_loop and turn >= (1 if is_trained else 3):
                continue
            if turn == 0 and not is_loop:
                # Caches and threads as they leave them themselves.
                run(way, is_trained=is_trained)
            times[name].append(clock(lambda way=way: run(way, is_trained=is_trained), "cpu"))
    return {name: statistics.median(values) for name, values in times.items()}


def run(way: Callable[[], Tensor], *, is_trained: bool) -> None:
    with torch.set_grad_enabled(is_trained):
        result = way()
        if is_trained:
            # Gradients add up, as in training; nobody reads them.
            result.square().sum().backward()


if __name__ == "__main__":
    main()
