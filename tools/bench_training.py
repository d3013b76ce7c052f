"""Train configs against each other at equal minutes, and print mean and spread over seeds.

    python tools/bench_training.py --data NAIP OAM --config configs/laptop.yaml \
        configs/laptop_strong.yaml --seeds 0 1 2 --minutes 10 --out runs/bench

The trials of a data set and a seed run at the same time, each on one core of its own, and their
minutes are those of that core's time; --sequential gives each the whole machine in turn, by the
clock. Bundles are
scored on whole scenes of --split. Trials that are finished are not repeated.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trials import Trial, circumstances, mean_and_spread


def main() -> None:
    options = parse()
    for data in options.data:
        for seed in options.seeds:
            trials = [make_trial(options, data, config, seed) for config in options.config]
            run_all([trial for trial in trials if not trial.is_finished], options.sequential)
    print_table(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="ROOT")
    parser.add_argument("--dataset", default="folder", metavar="NAME")
    parser.add_argument("--config", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--split", default="val")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not options.sequential and len(options.config) > cores:
        parser.error(
            f"{len(options.config)} configs need as many cores, here are {cores}; use --sequential"
        )
    return options


def make_trial(options: argparse.Namespace, data: Path, config: Path, seed: int) -> Trial:
    settings = [f"train.minutes={options.minutes}", *options.settings]
    core = None
    if not options.sequential:
        core = sorted(os.sched_getaffinity(0))[options.config.index(config)]
        # A process that loads would take from the core of another trial.
        settings.append("data.workers=0")
    return Trial(
        folder=options.out / data.name / config.stem / f"seed{seed}",
        config=config,
        dataset=options.dataset,
        data=data,
        seed=seed,
        split=options.split,
        settings=tuple(settings),
        core=core,
    )


def run_all(trials: list[Trial], is_sequential: bool) -> None:
    if is_sequential:
        for trial in trials:
            trial.run()
        return
    with ThreadPoolExecutor(max(1, len(trials))) as pool:
        list(pool.map(Trial.run, trials))


def print_table(options: argparse.Namespace) -> None:
    print(f"| data | config | mIoU %, {options.split} | each of seeds {options.seeds} | steps |")
    print("|---|---|---|---|---|")
    for data in options.data:
        for config in options.config:
            trials = [make_trial(options, data, config, seed) for seed in options.seeds]
            mious = [trial.score() for trial in trials]
            each = ", ".join(f"{miou:.2f}" for miou in mious)
            steps = ", ".join(str(steps_of(trial)) for trial in trials)
            print(f"| {data.name} | {config.stem} | {mean_and_spread(mious)} | {each} | {steps} |")
    how = "one after the other" if options.sequential else "at the same time, one core each"
    print(f"\n{options.minutes:g} minutes a run, {how}; ± is the standard deviation.")
    print(f"{circumstances()}.")


def steps_of(trial: Trial) -> int:
    rows = (trial.folder / "run" / "metrics.csv").read_text().splitlines()
    return int(float(rows[-1].split(",")[rows[0].split(",").index("step")]))


if __name__ == "__main__":
    main()
