"""``cvmh data``."""

from pathlib import Path

import click

from cvmh.cli.datasets import list_sets, prepare
from cvmh.cli.doctor import doctor
from cvmh.cli.progress import shown
from cvmh.cli.split import split
from cvmh.cli.verb import PATH, Verb


@click.group()
def command() -> None:
    """Find, check, prepare or make labelled data sets."""


command.add_command(list_sets)
command.add_command(prepare)
command.add_command(doctor)
command.add_command(split)


@command.command(cls=Verb)
@click.argument("root", type=PATH)
@click.option("--scenes", type=click.IntRange(min=2), default=5, show_default=True)
@click.option(
    "--size", type=click.IntRange(min=32), default=1024, show_default=True, help="Pixels."
)
@click.option("--gsd", type=click.FloatRange(min=0.05, max=2), default=0.25, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def synth(root: Path, scenes: int, size: int, gsd: float, seed: int) -> None:
    """Write a folder data set of synthetic aerial scenes with exact labels to ROOT."""
    from cvmh.datasets.synthetic_set import write_synthetic

    with shown("auto") as progress:
        write_synthetic(
            root, num_scenes=scenes, seed=seed, height=size, width=size, gsd=gsd, progress=progress
        )
    click.echo(root)
