"""Time the selective scan and the network around it; print Markdown tables for docs/benchmarks.md.

    python tools/bench_scan.py                 # CPU: tests of the scan first, then the tables
    python tools/bench_scan.py --device cuda

Contenders of a row take turns, and medians count, so that what else the machine does meets all of
them alike. Each runs once untimed before, so that caches and threads are as it leaves them itself;
the naive loops, which take long, do not, and run once where they are trained.

The floor is the time in which one thread moves the bytes that a fused scan must move at least, at
the speed at which it copies arrays too large for any cache: x, dt, B and C read once and y written
once; in a training step x, dt, B, C and the gradient of y once more, and the gradients of x, dt, B
and C written. In float32.
"""

import argparse
import collections
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cvmh.memory import keep_freed_memory
from cvmh.models.mixer_block import MixerBlock
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
PRODUCTS = ("mm", "conv")
# Bytes of the arrays whose copy gives the speed of memory: more than caches hold.
LARGE = 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes")
    arguments = parser.parse_args()
    refuse_red_tests()
    # As the command line does.
    keep_freed_memory()
    device, repeats = arguments.device, arguments.repeats
    print_machine(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    speed = copy_speed(device)
    print(f"Copying {LARGE >> 20} MiB: {speed / 1e9:.0f} GB/s read and written")
    for side, channels, states in SIZES[: arguments.sizes]:
        compare_scans(side, channels, states, device, repeats, speed)
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
    name += f" ({torch.backends.cpu.get_cpu_capability()})" if device == "cpu" else ""
    kernels = version("numba" if device == "cpu" else "triton")
    print(f"cvmh {VERSION} ({commit}), torch {torch.__version__}, kernels {kernels}, {name}\n")


def compare_scans(
    side: int, channels: int, states: int, device: str, repeats: int, speed: float
) -> None:
    """Print the forward and the training step of every way to scan a map along four paths."""
    given = draw(side, channels, states, device)
    order = order_table("ss2d", side, side).to(device)
    ours = "numba" if device == "cpu" else "triton"
    ways: dict[str, Callable[[], Tensor]] = {
        ours: lambda: selective_scan(*given, order=order, backend=ours),
        "torch": lambda: selective_scan(*given, order=order, backend="torch"),
        "naive loop": lambda: naive_scan(*given, side=side),
        "naive loop, published": lambda: published_scan(*given, side=side),
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
    moved = sum(tensor.nbytes for tensor in (*given, given[0]))
    floors = {
        "forward": moved / speed,
        "training step": (3 * moved - given[0].nbytes) / speed,
    }
    print(f"\n{side}x{side} pixels, {channels} channels, {states} states, one thread\n")
    print("| pass | way | ms | times ours | times the floor |\n|---|---|---|---|---|")
    for what, floor in floors.items():
        if what == "training step" and side * side * states > 64 * 64:
            # Minutes a step, 7 with 16 states as published.
            ways = {name: way for name, way in ways.items() if not name.startswith("naive")}
        steps = {n: (w if what == "forward" else train_step(w, given)) for n, w in ways.items()}
        times = take_turns(steps, device, repeats, grad=what != "forward")
        for name, seconds in times.items():
            ratio = seconds / times[ours]
            print(
                f"| {what} | {name} | {seconds * 1e3:.2f} | {ratio:.1f} | {seconds / floor:.1f} |",
                flush=True,
            )


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


def by_path(values: Tensor, order: Tensor) -> Tensor:
    """Return maps (B, K, L, ...) with the rows of each path in its order (K, L)."""
    return torch.stack([values[:, k, row] for k, row in enumerate(order)], 1)


def naive_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, side: int
) -> Tensor:
    """Copy the map along each path, loop over its steps, copy back, add: a loop with care."""
    order = order_table("ss2d", side, side).to(x.device).long()
    paths = torch.stack([x[:, row] for row in order], dim=1)
    dt, B, C = (by_path(value, order) for value in (dt, B, C))
    state = x.new_zeros(len(x), PATHS, x.shape[-1], A.shape[-1])
    steps = []
    for t in range(order.shape[1]):
        decay = torch.exp(dt[:, :, t, :, None] * A)
        drive = (dt[:, :, t] * paths[:, :, t])[..., None] * B[:, :, t, None, :]
        state = decay * state + drive
        steps.append((state * C[:, :, t, None, :]).sum(-1))
    y = torch.stack(steps, dim=2) + D[:, None] * paths
    return by_path(y, torch.argsort(order, dim=1)).sum(1)


def published_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, side: int
) -> Tensor:
    """As the reference loops of Mamba and VMamba: channels first, all decays made before."""
    order = order_table("ss2d", side, side).to(x.device).long()
    paths = torch.stack([x[:, row] for row in order], dim=1)
    dt, B, C = (by_path(value, order) for value in (dt, B, C))
    u, dt, B, C = (value.transpose(2, 3).contiguous() for value in (paths, dt, B, C))
    decay = torch.exp(torch.einsum("bkdl,kdn->bkdln", dt, A))
    drive = torch.einsum("bkdl,bknl,bkdl->bkdln", dt, B, u)
    state = x.new_zeros(len(x), PATHS, x.shape[-1], A.shape[-1])
    steps = []
    for t in range(order.shape[1]):
        state = decay[:, :, :, t] * state + drive[:, :, :, t]
        steps.append(torch.einsum("bkdn,bkn->bkd", state, C[..., t]))
    y = (torch.stack(steps, dim=-1) + D[..., None] * u).transpose(2, 3)
    return by_path(y, torch.argsort(order, dim=1)).sum(1)


def train_step(way: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: torch.autograd.grad(way().square().sum(), leaves)


def take_turns(
    ways: dict[str, Callable[[], object]], device: str, repeats: int, *, grad: bool
) -> dict[str, float]:
    """Return the median seconds of each way; the naive loops have fewer turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.set_grad_enabled(grad):
        for turn in range(repeats + 1):
            for name, way in ways.items():
                is_naive = name.startswith("naive")
                if is_naive and (turn != 1 if grad else turn > 3):
                    continue
                if not is_naive:
                    way()
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


def copy_speed(device: str) -> float:
    """Return the bytes, read and written, that one thread moves in a second."""
    source = torch.ones(LARGE // 4, device=device)
    target = torch.empty_like(source).copy_(source)
    times = [clock(lambda: target.copy_(source), device) for _ in range(9)]
    return 2 * LARGE / statistics.median(times)


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


class Block(nn.Module):
    """VMamba's block (s1l8): the mixer, and an MLP four times as wide, each with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixer = MixerBlock(channels, mixer=lambda c: SS2D(c, d_state=1, expand=1.0))
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = self.mixer(x)
        return x + self.mlp(self.norm(x))


@torch.no_grad()
def show_block(repeats: int) -> None:
    """Print the share of the scan in the block that it is the heart of."""
    print("\nVMamba's block with MLP, 96 channels, N 1, one thread; the scan makes dt by itself\n")
    print("| map | block ms | scan | of it the recurrence |\n|---|---|---|---|")
    for side in (64, 128):
        block, x = Block(96).eval(), torch.randn(1, side, side, 96)
        calls = []

        def record(*given: Tensor, calls=calls, **options: object) -> Tensor:
            calls.append((given, options))
            return selective_scan(*given, **options)

        with mock.patch("cvmh.models.ss2d.selective_scan", record):
            block(x)
        (pixels, _, A, B, C, D), options = calls[0]
        order = options["order"]
        dt = torch.rand(1, PATHS, side * side, 96)
        ways = {
            "block": lambda block=block, x=x: block(x),
            "scan": lambda calls=calls: selective_scan(*calls[0][0], **calls[0][1]),
            "recurrence": lambda a=(pixels, dt, A, B, C, D), o=order: selective_scan(*a, order=o),
        }
        times = take_turns(ways, "cpu", repeats, grad=False)
        scan, recurrence = times["scan"] / times["block"], times["recurrence"] / times["block"]
        print(f"| {side}x{side} | {times['block'] * 1e3:.1f} | {scan:.1%} | {recurrence:.1%} |")


class Clock(TorchDispatchMode):
    """Adds up the seconds of each operator; torch's own profiler takes longer than some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.calls: dict[str, int] = collections.defaultdict(int)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        name = str(function).rpartition(".")[0]
        self.seconds[name] += time.perf_counter() - start
        self.calls[name] += 1
        return result


@torch.no_grad()
def show_network(repeats: int) -> None:
    """Print where the time of the paper's network goes."""
    network = create_model("cvmh_unet").eval()
    image = torch.randn(1, 3, 256, 256)
    network(image)
    walls, clocks = [], []
    for _ in range(repeats):
        walls.append(clock(lambda: network(image), "cpu"))
        with Clock() as one:
            network(image)
        clocks.append(one)
    names, calls = list(clocks[0].seconds), clocks[0].calls
    seconds = {name: statistics.median(one.seconds[name] for one in clocks) for name in names}
    total = sum(seconds.values())
    products = sum(
        value for name, value in seconds.items() if any(part in name for part in PRODUCTS)
    )
    print(
        f"\ncvmh_unet, 256x256, forward, one thread: {statistics.median(walls) * 1e3:.0f} ms, "
        f"operators {total / products:.2f} times its matrix products and convolutions\n"
    )
    print("| operator | calls | share |\n|---|---|---|")
    for name in sorted(names, key=seconds.__getitem__, reverse=True)[:12]:
        print(f"| `{name}` | {calls[name]} | {seconds[name] / total:.1%} |")


if __name__ == "__main__":
    main()
