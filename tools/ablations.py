"""Train the rows of an ablation table over seeds; print mean and spread beside the published row.

    python tools/ablations.py --table 4 --data VAIHINGEN --seeds 0 1 2 --out runs/ablations

Rows come from configs/ablations/tableN.yaml. Every run has a folder: what is finished is not
repeated, what was stopped goes on. Scores are those of the test scenes by the paper's protocol,
unless --split and --protocol say otherwise, as other data sets want. Before a table that takes
days, try it: --set train.minutes=1 --set data.tile=64.
"""

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from trials import ROOT, Trial, circumstances, mean_and_spread

from cvmh.config import RunConfig
from cvmh.settings import merge, read_yaml, validate

TABLES = ROOT / "configs" / "ablations"
# As the tables of the paper print them.
SCORES = ("miou", "mf1", "oa")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table; one without settings is published only."""

    name: str
    published: dict[str, float]
    settings: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: the config that its rows change, and the rows."""

    title: str
    base: Path
    rows: tuple[Row, ...]

    def config(self, row: Row) -> RunConfig:
        """Return the settings of a row's runs."""
        written = merge(read_yaml(self.base), {"model": {"settings": row.settings or {}}})
        return validate(RunConfig, written, source=f"{self.title}, row '{row.name}'")


def read_table(path: Path) -> Table:
    """Read a table; its base is a path from the file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Table(
        title=content["title"],
        base=(path.parent / content["base"]).resolve(),
        rows=tuple(Row(**row) for row in content["rows"]),
    )


def main() -> None:
    options = parse()
    table = read_table(TABLES / f"table{options.table}.yaml")
    for row in table.rows:
        for trial in make_trials(options, table, row):
            if not trial.is_finished:
                print(f"{row.name}, seed {trial.seed}", flush=True)
                trial.run()
    print_table(options, table)


def parse() -> argparse.Namespace:
    numbers = sorted(path.stem.removeprefix("table") for path in TABLES.glob("table*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=numbers, required=True)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--dataset", metavar="NAME", help="instead of the table's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="test")
    parser.add_argument("--protocol", default="cvmh-paper")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def make_trials(options: argparse.Namespace, table: Table, row: Row) -> list[Trial]:
    if row.settings is None:
        return []
    folder = options.out / f"table{options.table}" / re.sub(r"\W+", "-", row.name.lower())
    config = table.config(row)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    trial = Trial(
        folder=folder,
        config=folder / "config.yaml",
        dataset=options.dataset or config.data.dataset,
        data=options.data,
        seed=0,
        split=options.split,
        protocol=options.protocol,
        settings=tuple(options.settings),
    )
    return [replace(trial, folder=folder / f"seed{seed}", seed=seed) for seed in options.seeds]


def print_table(options: argparse.Namespace, table: Table) -> None:
    others = list(dict.fromkeys(name for row in table.rows for name in row.published))
    published = [f"{name}, published" for name in others]
    print(f"\n{table.title}\n")
    print(f"| row | {' | '.join([*(f'{name} %' for name in SCORES), *published])} |")
    print("|---" * (1 + len(SCORES) + len(published)) + "|")
    for row in table.rows:
        trials = make_trials(options, table, row)
        ours = [mean_and_spread([trial.score(name) for trial in trials]) for name in SCORES]
        theirs = [str(row.published.get(name, "-")) for name in others]
        print(f"| {row.name} | {' | '.join([*ours, *theirs])} |")
    changed = f"; changed: {', '.join(options.settings)}" if options.settings else ""
    print(
        f"\n{options.data.name}, split {options.split}, protocol {options.protocol}, seeds "
        f"{options.seeds}{changed}; ± is the standard deviation. {circumstances()}."
    )


if __name__ == "__main__":
    main()
