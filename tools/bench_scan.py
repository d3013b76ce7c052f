"""Time the selective scan and the network around it; print Markdown tables for docs/benchmarks.md.

    python tools/bench_scan.py                 # CPU: tests of the scan first, then the tables
    python tools/bench_scan.py --device cuda

Contenders of a row take turns, and medians count, so that what else the machine does meets all of
them alike. The floor is the time in which the machine copies the bytes that a fused scan must
move at least: x, dt, B and C read once, y written once (forward), in float32.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from cvmh.models.cvss import VSSBlock
from cvmh.models.ss2d import SS2D
from cvmh.models.zoo import create_model
from cvmh.ops import selective_scan
from cvmh.ops.traversal import order_table
from cvmh.version import VERSION

PATHS = 4
# Side of the map, channels, states.
SIZES = ((64, 96, 1), (64, 96, 16), (128, 96, 1), (64, 192, 1))
ROOT = Path(__file__).resolve().parent.parent
# Operators that any implementation of the network needs: matrix products and convolutions.
PRODUCTS = ("mm", "addmm", "bmm", "conv", "mkldnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes")
    arguments = parser.parse_args()
    refuse_red_tests()
    device, repeats = arguments.device, arguments.repeats
    print_machine(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for side, channels, states in SIZES[: arguments.sizes]:
        compare_scans(side, channels, states, device, repeats)
    if device == "cpu":
        compare_threads(max(2, threads), repeats)
        show_block(repeats)
        show_network(repeats)


def refuse_red_tests() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/ops"]
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit("the tests in tests/ops fail, so there is nothing to time; run them first")


def print_machine(device: str) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    print(f"cvmh {VERSION} ({commit}), torch {torch.__version__}, {name}\n")


def compare_scans(side: int, channels: int, states: int, device: str, repeats: int) -> None:
    """Print the forward and the training step of every way to scan a map along four paths."""
    given = draw(side, channels, states, device)
    order = order_table("ss2d", side, side).to(device)
    ours = "numba" if device == "cpu" else "triton"
    ways: dict[str, Callable[[], Tensor]] = {
        ours: lambda: selective_scan(*given, order=order, backend=ours),
        "torch": lambda: selective_scan(*given, order=order, backend="torch"),
        "naive loop": lambda: naive_scan(*given, side=side),
    }
    if device == "cuda":
        compiled = torch.compile(lambda: selective_scan(*given, order=order, backend="torch"))
        ways["torch, compiled"] = compiled
    expected = ways["torch"]().detach()
    for name, way in ways.items():
        error = float(
            (way().detach() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        )
        if error > 1e-4:
            sys.exit(f"{name} differs from the torch backend by {error:.1e} of its rms")
    floor = floor_of(given, repeats)
    print(f"\n{side}x{side} pixels, {channels} channels, {states} states, one thread\n")
    print("| pass | way | ms | times ours | times the floor |\n|---|---|---|---|---|")
    for what in ("forward", "training step"):
        steps = {n: (w if what == "forward" else train_step(w, given)) for n, w in ways.items()}
        times = take_turns(steps, device, repeats, grad=what != "forward")
        for name, seconds in times.items():
            share = f"{seconds / floor:.1f}" if what == "forward" else ""
            ratio = seconds / times[ours]
            print(f"| {what} | {name} | {seconds * 1e3:.2f} | {ratio:.1f} | {share} |", flush=True)


def draw(side: int, channels: int, states: int, device: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    pixels = side * side
    leaves = (
        normal(1, pixels, channels),
        torch.rand(1, PATHS, pixels, channels, generator=generator).to(device) * 0.1 + 1e-3,
        -torch.rand(PATHS, channels, states, generator=generator).to(device) - 0.5,
        normal(1, PATHS, pixels, states),
        normal(1, PATHS, pixels, states),
        normal(PATHS, channels),
    )
    return tuple(leaf.requires_grad_() for leaf in leaves)


def naive_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, side: int
) -> Tensor:
    """The customary way: copy the map along each path, loop over its steps, copy back, add."""
    order = order_table("ss2d", side, side).to(x.device).long()
    inverse = torch.argsort(order, dim=1)
    paths = torch.stack([x[:, row] for row in order], dim=1)
    dt, B, C = (torch.stack([v[:, k, row] for k, row in enumerate(order)], 1) for v in (dt, B, C))
    state = x.new_zeros(len(x), PATHS, x.shape[-1], A.shape[-1])
    steps = []
    for t in range(order.shape[1]):
        decay = torch.exp(dt[:, :, t, :, None] * A)
        drive = (dt[:, :, t] * paths[:, :, t])[..., None] * B[:, :, t, None, :]
        state = decay * state + drive
        steps.append((state * C[:, :, t, None, :]).sum(-1))
    y = torch.stack(steps, dim=2) + D[:, None] * paths
    return torch.stack([y[:, k, row] for k, row in enumerate(inverse)], 1).sum(1)


def train_step(way: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: torch.autograd.grad(way().square().sum(), leaves)


def take_turns(
    ways: dict[str, Callable[[], object]], device: str, repeats: int, *, grad: bool
) -> dict[str, float]:
    """Return the median seconds of each way; the slow loop has fewer turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.set_grad_enabled(grad):
        for turn in range(repeats + 1):
            for name, way in ways.items():
                if name == "naive loop" and turn > 3:
                    continue
                seconds = clock(way, device)
                # The first turn warms caches and compilers.
                if turn:
                    times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def clock(way: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    way()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def floor_of(given: tuple[Tensor, ...], repeats: int) -> float:
    """Return the seconds that copying the least bytes of a forward takes, at the same size."""
    x = given[0]
    num_bytes = sum(tensor.nbytes for tensor in given) + x.nbytes
    source = torch.empty(num_bytes // 8, dtype=torch.float32, device=x.device).normal_()
    target = torch.empty_like(source)
    # A copy reads and writes each byte, so half of the bytes are copied.
    times = [clock(lambda: target.copy_(source), x.device.type) for _ in range(repeats + 3)]
    return statistics.median(times[3:])


def compare_threads(most: int, repeats: int) -> None:
    print(
        f"\nThreads (numba)\n\n| map | pass | 1 thread ms | {most} threads ms |\n|---|---|---|---|"
    )
    for side, channels, states in ((16, 96, 1), *SIZES[:2]):
        given, order = draw(side, channels, states, "cpu"), order_table("ss2d", side, side)

        def scan(given=given, order=order) -> Tensor:
            return selective_scan(*given, order=order, backend="numba")

        for what, step in (("forward", scan), ("training step", train_step(scan, given))):
            ways = {str(n): with_threads(n, step) for n in (1, most)}
            times = take_turns(ways, "cpu", repeats, grad=what != "forward")
            one, many = (1e3 * seconds for seconds in times.values())
            print(f"| {side}x{side}, N {states} | {what} | {one:.2f} | {many:.2f} |", flush=True)
    torch.set_num_threads(1)


def with_threads(number: int, way: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        torch.set_num_threads(number)
        return way()

    return run


@torch.no_grad()
def show_block(repeats: int) -> None:
    """Print the share of the scan in the block that it is the heart of."""
    block = VSSBlock(96, mixer=lambda channels: SS2D(channels, d_state=1, expand=1.0)).eval()
    x = torch.randn(1, 64, 64, 96)
    calls = []

    def record(*given: Tensor, **options: object) -> Tensor:
        calls.append((given, options))
        return selective_scan(*given, **options)

    with mock.patch("cvmh.models.ss2d.selective_scan", record):
        block(x)
    given, options = calls[0]
    ways = {"block": lambda: block(x), "scan": lambda: selective_scan(*given, **options)}
    times = take_turns(ways, "cpu", repeats, grad=False)
    print(
        f"\nVSS block without MLP, 96 channels, 64x64, N 1: {times['block'] * 1e3:.1f} ms, "
        f"of which the scan {times['scan'] / times['block']:.0%}"
    )


@torch.no_grad()
def show_network(repeats: int) -> None:
    """Print where the time of the paper's network goes."""
    network = create_model("cvmh_unet").eval()
    image = torch.randn(1, 3, 256, 256)
    times = take_turns({"forward": lambda: network(image)}, "cpu", repeats, grad=False)
    with torch.profiler.profile() as profile:
        network(image)
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    products = sum(
        row.self_cpu_time_total
        for row in rows
        if any(part in row.key.replace("aten::", "").lstrip("_") for part in PRODUCTS)
    )
    print(
        f"\ncvmh_unet, 256x256, forward, one thread: {times['forward'] * 1e3:.0f} ms, "
        f"{total / products:.2f} times its matrix products and convolutions\n"
    )
    print("| operator | calls | share |\n|---|---|---|")
    for row in rows[:12]:
        print(f"| `{row.key}` | {row.count} | {row.self_cpu_time_total / total:.1%} |")


if __name__ == "__main__":
    main()
