"""Running the network over tiles, in passes of one shape, on all cores or GPUs.

Legend: B batch, C bands, K classes, H height, W width.
"""

import copy
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cvmh import memory
from cvmh.classes import NODATA_ID
from cvmh.errors import BundleError, ConfigError
from cvmh.geo.tiling import TilePlan, Window
from cvmh.models.bundle import Bundle
from cvmh.models.pruning import Grid
from cvmh.models.pruning.learned import Trace
from cvmh.models.pruning.scores import Keep
from cvmh.predict.augment import IDENTITY, transforms
from cvmh.predict.cells import count_cells, count_chosen
from cvmh.predict.devices import choose_devices, choose_precision
from cvmh.predict.passes import Entry, Pass, PassMaker
from cvmh.predict.pruning import OFF, Pruning
from cvmh.predict.read import Tile
from cvmh.predict.scored import ScoredTile, best_class

# A pass on the CPU takes about so many pixels: more do not fit its cache, fewer cost more calls.
PIXELS_IN_CACHE = 1 << 17
# Networks pad smaller tiles, which then take as much memory as one of so many pixels.
FEWEST_PIXELS = 32 * 32
# Passes a worker that are computed or wait to be fetched, in their order.
PASSES_UNDER_WAY = 2


@dataclass(kw_only=True)
class Spent:
    """Seconds of the network on dense and on pruned tiles, and how many such there were.

    ``trial`` is what a dense tile took when the network was tried out.
    """

    dense: float = 0.0
    pruned: float = 0.0
    dense_places: int = 0
    pruned_tiles: int = 0
    trial: float | None = None

    @property
    def dense_tile(self) -> float | None:
        """Seconds of a dense tile, None if there was none."""
        return self.dense / self.dense_places if self.dense_places else self.trial


class Trial(NamedTuple):
    """Bytes of main memory without a pass, the most that one takes, and seconds of a dense one."""

    resident: int
    bytes_a_pass: int
    seconds_a_pass: float


class Worker(NamedTuple):
    """A device, and the network on it."""

    device: torch.device
    network: nn.Module


class Engine:
    """Runs a bundle's network; each tile's scores depend on that tile alone.

    Every dense pass has the same shape, and every tile its own place in one; where its
    neighbours there are not wanted, zeros are. Kernels are chosen by shape and treat the last rows
    of a matrix in their own way, so that at another place a tile would get other bits: like this
    it gets the same, whichever stripes are finished already and whatever the spans of columns.
    Passes of pruned tiles are of shapes that leave no last rows (:mod:`cvmh.predict.passes`).

    On the CPU a pass takes as many tiles as suit its cache and runs on one thread, many passes at
    a time: that scales better than many threads in one pass, and the scores depend neither on
    ``batch`` nor on the number of cores.

    Use it as a context manager: it owns threads.

    Args:
        bundle: network and card.
        plan: the tiles to come; tells their size and their number.
        batch: tiles in one forward pass on a GPU.
        device: "auto", "cpu", "cuda", "cuda:1" ..., "mps"; several with commas between.
        precision: "auto", "fp32" or "bf16"; auto is bf16 on cuda, else fp32.
        tta: average the scores of the flipped and turned tile.
        cores: processor cores to use, default all.
        pruning: the cells that are left out.
        is_sample: the tiles to come lie apart, so that each gets a pass of its own; others would
            be filled with zeros.

    Raises:
        ConfigError: a device or the precision is unknown or not there.
    """

    def __init__(
        self,
        bundle: Bundle,
        plan: TilePlan,
        *,
        batch: int,
        device: str,
        precision: str,
        tta: bool = False,
        cores: int | None = None,
        pruning: Pruning = OFF,
        is_sample: bool = False,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1 tile, got {batch}")
        self._card, self._plan = bundle.card, plan
        devices = choose_devices(device)
        self._dtype = choose_precision(precision, devices[0])
        self._transforms = transforms(plan) if tta else (IDENTITY,)
        stripe = plan.stripe(0)
        pixels = stripe.input_height * stripe.input_width
        on_cpu = devices[0].type == "cpu"
        most = max(1, PIXELS_IN_CACHE // max(pixels, FEWEST_PIXELS)) if on_cpu else batch
        most = 1 if is_sample else most
        # As few passes as that takes, and little padding in the last.
        self.tiles_a_pass = -(-plan.num_tiles // -(-plan.num_tiles // most))
        passes = -(-plan.num_tiles // self.tiles_a_pass)
        cores = cores or torch.get_num_threads()
        # Products split among threads give other last bits.
        self._threads = 1 if on_cpu else cores
        if on_cpu:
            devices = devices * min(cores, passes)
        self._workers = _spread(bundle.network, devices)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._lock = threading.Lock()
        self.spent = Spent()
        self.prune(pruning)

    def prune(self, pruning: Pruning) -> None:
        """Leave out other cells from now on."""
        self.pruning = pruning
        self._maker = PassMaker(
            self._plan,
            tiles_a_pass=self.tiles_a_pass,
            transforms=self._transforms,
            pruning=pruning,
            on_cpu=self._workers[0].device.type == "cpu",
        )

    def __enter__(self) -> Self:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        self._pool = ThreadPoolExecutor(len(self._workers), thread_name_prefix="cvmh-network")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """The devices in use, each once."""
        return tuple(dict.fromkeys(worker.device for worker in self._workers))

    @property
    def num_workers(self) -> int:
        """The number of forward passes that run at a time."""
        return len(self._workers)

    @property
    def seconds(self) -> float:
        """The seconds that forward passes took, together."""
        return self.spent.dense + self.spent.pruned

    @property
    def precision(self) -> str:
        """The dtype of the forward pass."""
        return str(self._dtype).removeprefix("torch.")

    def limit_workers(self, most: int) -> None:
        """Let at most so many passes run at a time."""
        del self._workers[most:]
        self._idle = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def measure(self, plan: TilePlan, num_bands: int) -> Trial:
        """Return the memory and the seconds that a pass takes, tried with zeros.

        The first pass loads and compiles what is needed, the second tells the memory, and the third
        the seconds, since it finds the memory there.
        """
        stripe = plan.stripe(0)
        tile = Tile(
            stripe=0,
            window=Window(0, 0, stripe.height, stripe.width),
            pixels_CHW=np.zeros((num_bands, stripe.height, stripe.width), dtype=np.float32),
            is_valid_HW=np.ones((stripe.height, stripe.width), dtype=bool),
            input_size=(stripe.input_height, stripe.input_width),
        )
        dense = Pass([Entry(0, tile, None)] * self.tiles_a_pass)
        threads = torch.get_num_threads()
        try:
            self._score(dense)
            memory.release_freed()
            before = memory.resident()
            memory.forget_peak()
            self._score(dense)
            held = max(0, memory.peak_resident() - before)
            self.spent = Spent()
            self._score(dense)
            seconds, self.spent = self.seconds, Spent(trial=self.spent.dense_tile)
            factor = self._maker.memory_factor(count_cells(tile.input_size))
            return Trial(before, int(held * factor), seconds)
        finally:
            torch.set_num_threads(threads)

    def run(self, tiles: Iterable[Tile]) -> Iterator[ScoredTile]:
        """Yield the tiles in the order they came, with their scores.

        Raises:
            BundleError: the network's output has the wrong shape or is not finite.
        """
        # Pruned tiles come out of turn.
        early: dict[int, ScoredTile] = {}
        next_number = 0
        for scored in self._finished(self._maker.passes(tiles)):
            early |= scored
            while next_number in early:
                yield early.pop(next_number)
                next_number += 1

    def _finished(self, passes: Iterable[Pass]) -> Iterator[dict[int, ScoredTile]]:
        """Yield the tiles of each pass by their numbers, in the order of the passes."""
        running: deque[Future[dict[int, ScoredTile]]] = deque()
        for passed in passes:
            running.append(self._pool.submit(self._score, passed))
            # So many passes are under way that no worker waits for this thread.
            if len(running) > PASSES_UNDER_WAY * len(self._workers):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def _score(self, passed: Pass) -> dict[int, ScoredTile]:
        worker = self._idle.get()
        started = time.perf_counter()
        try:
            # The setting is one of each thread.
            torch.set_num_threads(self._threads)
            with torch.inference_mode():
                return dict(self._scored(worker, passed))
        finally:
            self._idle.put(worker)
            self._count(passed, time.perf_counter() - started)

    def _count(self, passed: Pass, seconds: float) -> None:
        with self._lock:
            if passed.is_dense:
                self.spent.dense += seconds
                self.spent.dense_places += len(passed.places)
            else:
                self.spent.pruned += seconds
                self.spent.pruned_tiles += len(passed.entries)

    def _scored(self, worker: Worker, passed: Pass) -> Iterator[tuple[int, ScoredTile]]:
        tiles, first = passed.tiles, passed.entries[0].tile
        window, size = first.window, first.input_size
        nothing = torch.zeros(first.pixels_CHW.shape)
        inputs = [nothing if tile is None else torch.from_numpy(tile.pixels_CHW) for tile in tiles]
        pixels_BCHW = _resized(torch.stack(inputs).to(worker.device), size)
        scores_BKHW, counts = self._average(worker, pixels_BCHW, passed)
        scores_BKHW = _resized(scores_BKHW, (window.height, window.width)).cpu()
        for place, (scores_KHW, entry) in enumerate(zip(scores_BKHW, passed.places, strict=True)):
            if entry is None:
                continue
            ids_HW = best_class(scores_KHW.numpy())[0]
            np.putmask(ids_HW, ~entry.tile.is_valid_HW, NODATA_ID)
            cells = entry.cells if counts is None else count_chosen(counts[place], size)
            yield entry.number, ScoredTile(entry.tile, scores_KHW, ids_HW, cells)

    def _average(
        self, worker: Worker, pixels_BCHW: torch.Tensor, passed: Pass
    ) -> tuple[torch.Tensor, list[int] | None]:
        """Return the mean scores over the flips and turns, float32.

        With them the most cells of each tile that the network chose in one of these.
        """
        total: torch.Tensor | None = None
        found: list[list[int]] = []
        for turn, transform in enumerate(self._transforms):
            grid = passed.grid(turn, worker.device)
            trace = None if passed.keep is None else Trace()
            turned_BCHW = transform.apply(pixels_BCHW)
            logits_BKHW = self._logits(worker, turned_BCHW, grid, passed.keep, trace)
            self._check(logits_BKHW, pixels_BCHW, passed.tiles)
            logits_BKHW = logits_BKHW.float()
            if self._card.temperature != 1:
                logits_BKHW = logits_BKHW / self._card.temperature
            scores_BKHW = torch.softmax(logits_BKHW, dim=1)
            back = transform.undo(scores_BKHW)
            total = back if total is None else total.add_(back)
            if trace is not None and trace.counts_B is not None:
                found.append(trace.counts_B.tolist())
        assert total is not None, "there is always the identity"
        mean = total if len(self._transforms) == 1 else total.div_(len(self._transforms))
        return mean, [max(counts) for counts in zip(*found, strict=True)] if found else None

    def _logits(
        self,
        worker: Worker,
        pixels_BCHW: torch.Tensor,
        grid: Grid | None,
        keep: Keep | None,
        trace: Trace | None,
    ) -> torch.Tensor:
        low = self._dtype != torch.float32
        with torch.autocast(worker.device.type, self._dtype, enabled=low):
            try:
                # Most networks take no grid, and few choose cells.
                cells = {} if grid is None else {"grid": grid}
                choice = {} if keep is None else {"keep": keep, "trace": trace}
                logits: torch.Tensor = worker.network(pixels_BCHW, **cells, **choice)
                return logits
            except torch.OutOfMemoryError as error:
                # No fault of the bundle: what is finished is of use with a smaller batch.
                raise ConfigError(
                    f"{worker.device} has too little memory for {len(pixels_BCHW)} tiles of "
                    f"{tuple(pixels_BCHW.shape[2:])} at a time; use a smaller --batch or --tile"
                ) from error
            except (RuntimeError, ValueError) as error:
                size = tuple(pixels_BCHW.shape[2:])
                if size == (self._card.tile, self._card.tile):
                    raise
                reason = str(error).strip().partition("\n")[0]
                raise BundleError(
                    f"network '{self._card.model}' does not take tiles of {size[0]} x {size[1]} "
                    f"pixels ({reason}); it was trained with --tile {self._card.tile}"
                ) from error

    def _check(
        self, logits_BKHW: torch.Tensor, pixels_BCHW: torch.Tensor, tiles: list[Tile | None]
    ) -> None:
        expected = (len(pixels_BCHW), len(self._card.classes), *pixels_BCHW.shape[2:])
        if tuple(logits_BKHW.shape) != expected:
            raise BundleError(
                f"network '{self._card.model}' must give logits of shape {expected}, "
                f"got {tuple(logits_BKHW.shape)}"
            )
        # One sum tells that all is well, thirty times as fast as a look at every score.
        if math.isfinite(logits_BKHW.sum(dtype=torch.float32).item()):
            return
        is_finite_B = torch.isfinite(logits_BKHW).flatten(1).all(dim=1).tolist()
        for tile, is_finite in zip(tiles, is_finite_B, strict=True):
            if tile is not None and not is_finite:
                raise BundleError(
                    f"network '{self._card.model}' must give finite scores, got NaN or infinity "
                    f"at {tile.window}; try --precision fp32, or train the bundle again"
                )


def _spread(network: nn.Module, devices: Sequence[torch.device]) -> list[Worker]:
    """Return a worker a device; workers of one device share its network."""
    copies: dict[torch.device, nn.Module] = {}
    for device in devices:
        if device not in copies:
            # The first device takes the network itself, the others copies of it.
            one = copy.deepcopy(network) if copies else network
            copies[device] = one.to(device).eval()
    return [Worker(device, copies[device]) for device in devices]


def _resized(maps_BCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return maps of another size: means where they shrink, interpolated where they grow."""
    if tuple(maps_BCHW.shape[2:]) == size:
        return maps_BCHW
    return functional.interpolate(
        maps_BCHW.float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
