"""Train two networks side by side for the same minutes on the same data, one core each.

Paired runs: both networks of a pair run at the same time with one thread, so whatever else the
machine does slows both. Prints a Markdown table of the best validation mIoU of each run.

    python tools/compare_networks.py --data ROOT --out DIR --minutes 10 --seeds 0 1 \
        --network cvmh_unet_nano:learning_rate=6e-3 --network unet_resnet18:learning_rate=1e-3
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
from pathlib import Path


def main() -> None:
    arguments = parse()
    jobs = [
        (name, options, seed) for seed in arguments.seeds for name, options in arguments.network
    ]
    print_header(arguments)
    for first in range(0, len(jobs), 2):
        running = [start(job, arguments) for job in jobs[first : first + 2]]
        for job, (process, folder) in zip(jobs[first : first + 2], running, strict=True):
            if process.wait():
                sys.exit(f"{job} failed; see {folder}.log")
            print_row(job, folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--network", type=network, action="append", required=True)
    parser.add_argument(
        "--set", dest="common", action="append", default=[], help="for all networks"
    )
    return parser.parse_args()


def network(text: str) -> tuple[str, list[str]]:
    name, *options = text.split(":")
    return name, [
        option if "." in option.split("=")[0] else f"train.{option}" for option in options
    ]


def start(job: tuple, arguments: argparse.Namespace) -> tuple[subprocess.Popen, Path]:
    name, options, seed = job
    label = "-".join([name, *(o.replace("=", "") for o in options), f"seed{seed}"])
    folder = arguments.out / label
    folder.parent.mkdir(parents=True, exist_ok=True)
    settings = [*arguments.common, *options, f"train.minutes={arguments.minutes}", "data.workers=0"]
    command = [sys.executable, "-m", "cvmh.cli.main", "train", "--dataset", "folder"]
    command += ["--data", str(arguments.data), "--model", name, "--seed", str(seed)]
    command += ["--out", str(folder), *(part for s in settings for part in ("--set", s))]
    log = Path(f"{folder}.log").open("w")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment), folder


def print_header(arguments: argparse.Namespace) -> None:
    import torch

    from cvmh.version import VERSION

    print(
        f"{arguments.data.name}, {arguments.minutes:g} minutes a run, one thread each, in pairs; "
        f"cvmh {VERSION}, torch {torch.__version__}, {platform.processor() or platform.machine()}\n"
    )
    print("| network | settings | seed | steps | best val mIoU | last val mIoU |")
    print("|---|---|---|---|---|---|", flush=True)


def print_row(job: tuple, folder: Path) -> None:
    name, options, seed = job
    with (folder / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val_miou")]
    best = max(float(row["val_miou"]) for row in rows)
    last = rows[-1]
    print(
        f"| {name} | {' '.join(options)} | {seed} | {float(last['step']):.0f} | {best:.4f} "
        f"| {float(last['val_miou']):.4f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
