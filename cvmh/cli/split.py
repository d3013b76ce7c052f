"""``cvmh data split``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb

if TYPE_CHECKING:
    from cvmh.datasets.blocks import SplitPlan


@click.command(cls=Verb)
@click.argument("root", type=PATH)
@click.option("--val", type=float, default=0.2, show_default=True, help="Share to validate on.")
@click.option("--test", type=float, default=0.0, show_default=True, help="Share to test on.")
@click.option(
    "--block",
    type=float,
    metavar="LENGTH",
    help="Side of the blocks of area; default: images that touch form a block.",
)
@click.option(
    "--gap",
    type=float,
    metavar="LENGTH",
    help="How far splits are apart at least; default 0, and 256 pixels where scenes are cut.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace split.csv if it exists.")
def split(
    root: Path,
    val: float,
    test: float,
    block: float | None,
    gap: float | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Write split.csv of the folder data set ROOT, by area, so that no split leaks into another.

    Images that touch, overlap, show the same pixels, or are nearer than --gap go to one split,
    and every class gets its share in every split as well as that allows. Where all images hang
    together, --block gathers them into blocks of that size, and leaves out those that lie between
    two splits (split 'unused'). Scenes larger than a block are cut into blocks, as small VRT
    files beside them. Lengths are in metres, or in pixels where an image has no georeference.

    Example: cvmh data split my_tiles --val 0.2 --block 500
    """
    from cvmh.datasets.blocks import check_target, open_unsplit, plan_split, write_split
    from cvmh.datasets.doctor.survey import survey

    check_target(root / "split.csv", overwrite=overwrite)
    data = open_unsplit(root)
    with shown("auto") as progress:
        examination = survey(data, progress=progress)
        plan = plan_split(examination, val=val, test=test, block=block, gap=gap, seed=seed)
        write_split(root, plan, overwrite=overwrite, progress=progress)
    if not plan.in_metres:
        click.echo(
            "cvmh: some images have no georeference, so neighbours cannot be known: only images "
            "that share pixels were kept together",
            err=True,
        )
    _tell_split(plan)
    click.echo(root / "split.csv")


def _tell_split(plan: "SplitPlan") -> None:
    kind = "blocks" if plan.is_cut else "images"
    names = [name for name in ("train", "val", "test") if name in plan.splits]
    found = [plan.class_pixels(name) for name in names]
    totals = [sum(counts) for counts in zip(*found, strict=True)]
    for name, counts in zip(names, found, strict=True):
        share = counts.sum() / sum(totals)
        click.echo(f"{name:<6} {plan.splits.count(name):>6} {kind}, {share:.1%} of the labels")
        both = zip(plan.class_names, counts, totals, strict=True)
        missing = [entry for entry, count, total in both if total and not count]
        if missing:
            click.echo(f"       without {', '.join(missing)}")
    unused = plan.splits.count("unused")
    if unused:
        click.echo(f"unused {unused:>6} {kind}, which lie between splits")
