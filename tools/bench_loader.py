"""Time what a training waits for: crops from the loader, and steps of the network that takes them.

    python tools/bench_loader.py --data ROOT --config configs/laptop.yaml
    python tools/bench_loader.py --data ROOT --set data.balance=0.5 --set augment.mosaic=0.5

Prints Markdown tables: crops per second of the loader alone by the number of its processes, steps
of the network alone on a batch that is there already, and both together as a training runs them.
All take turns, and medians count, so that what else the machine does meets all of them alike.
The processor's time, of all processes of a contender together, hardly depends on that at all.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cvmh.config import RunConfig
from cvmh.datasets import open_data, prepare_training
from cvmh.memory import keep_freed_memory
from cvmh.models.zoo import create_model
from cvmh.settings import merge, parse_assignment, read_yaml, validate
from cvmh.train.module import SegmentationModule

# The loader alone must give so many times what the network takes.
ASKED = 3


class Pace(NamedTuple):
    """Crops per second, and milliseconds of the processor's time a crop."""

    crops: float
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder data set")
    parser.add_argument("--config", type=Path, help="settings of a run; default: the nano preset")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of the network in a round")
    parser.add_argument("--fetches", type=int, default=20, help="of the loader alone in a round")
    arguments = parser.parse_args()
    keep_freed_memory()
    given = {"data": {"root": str(arguments.data)}, "model": {"name": "cvmh_unet_nano"}}
    written = read_yaml(arguments.config) if arguments.config else {}
    layers = (given, written, *map(parse_assignment, arguments.assignments))
    config = validate(RunConfig, merge(*layers), source="settings")
    cores = len(os.sched_getaffinity(0))
    print(
        f"{arguments.data.name}, {config.model.name}, tile {config.data.tile}, batch "
        f"{config.data.batch}, {cores} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("CVMH_CACHE", cache)
        compare(config, arguments, workers=range(cores + 1))


def compare(config: RunConfig, arguments: argparse.Namespace, *, workers: range) -> None:
    """Let the contenders take turns, and print their medians."""
    feeds = {number: Feed(config, number) for number in workers}
    step, batch = make_step(config), feeds[0].fetch()
    contenders = [Contender("network alone", arguments.steps, lambda: step(batch))]
    for number, feed in feeds.items():
        name = f"{number} workers"
        fetch = feed.fetch
        contenders += [
            Contender(f"loader alone, {name}", arguments.fetches, fetch, feed),
            Contender(f"training, {name}", arguments.steps, lambda f=fetch: step(f()), feed),
        ]
    paces: dict[str, list[Pace]] = {contender.name: [] for contender in contenders}
    for _ in range(arguments.rounds):
        for contender in contenders:
            paces[contender.name].append(contender.measure(config.data.batch))
    medians = {
        name: Pace(*(statistics.median(column) for column in zip(*found, strict=True)))
        for name, found in paces.items()
    }
    print("| | crops/s | ms of the processor a crop |\n|---|---|---|")
    for name, pace in medians.items():
        print(f"| {name} | {pace.crops:.1f} | {pace.busy:.1f} |")
    best = max(medians[f"loader alone, {n} workers"].crops for n in workers)
    network, loader = medians["network alone"], medians["loader alone, 0 workers"]
    print(
        f"\nThe loader gives {best / network.crops:.1f} times what the network takes "
        f"({network.busy / loader.busy:.1f} times by the processor's time); asked: {ASKED}."
    )


class Feed:
    """Batches of a run's training loader, epoch after epoch."""

    def __init__(self, config: RunConfig, workers: int) -> None:
        data = config.data.model_copy(update={"workers": workers})
        changed = config.model_copy(update={"data": data})
        self.loader = prepare_training(open_data(data), changed).train_loader
        self._batches = self._endless()

    def fetch(self) -> list[Tensor]:
        """Return the next batch."""
        return next(self._batches)

    def busy(self) -> float:
        """Return the seconds of the processor that the loader's processes took until now."""
        processes = getattr(self.loader._iterator, "_workers", ())
        ticks = os.sysconf("SC_CLK_TCK")
        stats = [Path(f"/proc/{process.pid}/stat").read_text() for process in processes]
        # Behind the name, which may hold anything: user and system time are the 12th and 13th.
        times = [stat.rpartition(")")[2].split()[11:13] for stat in stats]
        return sum(int(part) for pair in times for part in pair) / ticks

    def _endless(self) -> Iterator[list[Tensor]]:
        epoch = 0
        while True:
            self.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            yield from self.loader
            epoch += 1


class Contender:
    """Something that takes or gives a batch, and is timed."""

    def __init__(
        self, name: str, times: int, action: Callable[[], object], feed: Feed | None = None
    ) -> None:
        self.name, self.times, self.action = name, times, action
        self.busy = (lambda: 0.0) if feed is None else feed.busy

    def measure(self, batch: int) -> Pace:
        """Return its pace over some batches."""
        # What processes have fetched ahead is used up, and threads are awake.
        for _ in range(5 if self.name.startswith("loader") else 1):
            self.action()
        busy = time.process_time() + self.busy()
        started = time.perf_counter()
        for _ in range(self.times):
            self.action()
        crops = self.times * batch
        seconds = time.perf_counter() - started
        busy = time.process_time() + self.busy() - busy
        return Pace(crops / seconds, 1000 * busy / crops)


def make_step(config: RunConfig) -> Callable[[list[Tensor]], None]:
    """Return a function that trains the network of a run on a batch."""
    data = open_data(config.data)
    summary = prepare_training(data, config).summary
    network = create_model(
        config.model.name,
        bands=len(summary.bands),
        num_classes=len(data.classes),
        **config.model.settings,
    )
    module = SegmentationModule(network, data.classes, config.train, fused=True)
    optimiser = module.configure_optimizers()

    def step(batch: list[Tensor]) -> None:
        images, labels, _ = batch
        optimiser.zero_grad()
        loss = module.loss(module.network(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_gradient)
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
