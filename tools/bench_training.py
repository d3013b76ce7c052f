"""Train configs, or networks, against each other at equal minutes; print means over seeds.

    python tools/bench_training.py --data NAIP OAM --config configs/laptop.yaml \
        configs/laptop_strong.yaml --seeds 0 1 2 --minutes 5 --out runs/bench
    python tools/bench_training.py --data NAIP --config configs/laptop.yaml --network \
        cvmh_unet_nano smp:fpn:cvmh-vssd_micro smp:fpn:resnet34 --minutes 5 --out runs/networks

Each trial has one core for itself, and its minutes are those of that core's time; --sequential
gives each the whole machine in turn, by the clock. Bundles are scored on whole scenes of --split.
Trials that are finished are not repeated.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from trials import Trial, circumstances, mean_and_spread


def main() -> None:
    options = parse()
    trials = [
        make_trial(options, data, contender, seed)
        for data in options.data
        for seed in options.seeds
        for contender in contenders(options)
    ]
    run_all([trial for trial in trials if not trial.is_finished], options.sequential)
    print_table(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="ROOT")
    parser.add_argument("--dataset", default="folder", metavar="NAME")
    parser.add_argument("--config", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--network", nargs="+", default=[], metavar="NAME", help="for each config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--split", default="val")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def contenders(options: argparse.Namespace) -> list[tuple[Path, str]]:
    """Return pairs of a config and a network; "" is the config's own."""
    return [(config, network) for config in options.config for network in options.network or [""]]


def make_trial(
    options: argparse.Namespace, data: Path, contender: tuple[Path, str], seed: int
) -> Trial:
    config, network = contender
    settings = [f"train.minutes={options.minutes}", *options.settings]
    if not options.sequential:
        # A process that loads would take from the core of another trial.
        settings.append("data.workers=0")
    return Trial(
        folder=options.out / data.name / config.stem / network / f"seed{seed}",
        config=config,
        network=network,
        dataset=options.dataset,
        data=data,
        seed=seed,
        split=options.split,
        settings=tuple(settings),
    )


def run_all(trials: list[Trial], is_sequential: bool) -> None:
    if is_sequential:
        for trial in trials:
            trial.run()
        return
    cores = sorted(os.sched_getaffinity(0))
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores:
        free.put(core)

    def run(trial: Trial) -> None:
        core = free.get()
        try:
            trial.run(core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(run, trials))


def print_table(options: argparse.Namespace) -> None:
    print(f"| data | trained | mIoU %, {options.split} | each of seeds {options.seeds} | steps |")
    print("|---|---|---|---|---|")
    for data in options.data:
        for contender in contenders(options):
            trials = [make_trial(options, data, contender, seed) for seed in options.seeds]
            mious = [trial.score() for trial in trials]
            each = ", ".join(f"{miou:.2f}" for miou in mious)
            steps = ", ".join(str(steps_of(trial)) for trial in trials)
            name = " ".join([contender[0].stem, contender[1]]).strip()
            print(f"| {data.name} | {name} | {mean_and_spread(mious)} | {each} | {steps} |")
    how = "by the clock, one after the other" if options.sequential else "of a core's time"
    print(f"\n{options.minutes:g} minutes a run {how}; ± is the standard deviation.")
    print(f"{circumstances()}.")


def steps_of(trial: Trial) -> int:
    rows = (trial.folder / "run" / "metrics.csv").read_text().splitlines()
    return int(float(rows[-1].split(",")[rows[0].split(",").index("step")]))


if __name__ == "__main__":
    main()
