"""``cvmh evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvmh.cli.progress import shown
from cvmh.cli.score_table import score_lines
from cvmh.cli.verb import PATH, Verb, command_line

if TYPE_CHECKING:
    from cvmh.config import DataSettings
    from cvmh.models.bundle import BundleCard

# Predictions lie here until the scores are written, so that an interrupted evaluation goes on.
UNFINISHED = ".predictions"


@click.command(cls=Verb)
@click.argument("bundle", type=PATH)
@click.option("--dataset", default="folder", show_default=True, metavar="NAME")
@click.option(
    "--data", "root", type=PATH, metavar="ROOT", help="The folder that the data set is in."
)
@click.option("--split", help="Score this split; default that of the protocol, mostly test.")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    metavar="NAME",
    default=("full",),
    show_default=True,
    help="full, cvmh-paper, geoseg, mmseg, ssrs, isprs, or all that can be scored. Repeatable.",
)
@click.option(
    "--boundary",
    type=int,
    default=3,
    show_default=True,
    metavar="PIXELS",
    help="Width of boundary IoU and F1, which need full labels; 0 for none.",
)
@click.option("--tta", is_flag=True, help="Average over flips and turns in protocol full.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="data.KEY=VALUE",
    help="Change a setting of the data set, such as data.layout=mmseg. Repeatable.",
)
@click.option("--out", type=PATH, metavar="DIR", help="Leave scores.json and report.html here.")
@click.option("--overwrite", is_flag=True, help="Replace what another evaluation left in --out.")
def command(
    bundle: Path,
    dataset: str,
    root: Path | None,
    split: str | None,
    protocols: tuple[str, ...],
    boundary: int,
    tta: bool,
    assignments: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
) -> None:
    """Score a BUNDLE on a split of labelled images, stitching whole scenes before scoring.

    With --out, an evaluation that was interrupted goes on when it is repeated.

    Example: cvmh evaluate runs/mine/best.safetensors --data my_tiles --split val --out scores
    """
    from cvmh.datasets import open_data
    from cvmh.models.bundle import load_bundle
    from cvmh.report.areas import told_areas
    from cvmh.report.evaluation import evaluate
    from cvmh.report.writing import PageObserver, check_folder, write_evaluation

    if out is not None:
        check_folder(out, overwrite=overwrite)
    loaded = load_bundle(bundle)
    settings = _settings(dataset, root, assignments, loaded.card)
    data = open_data(settings)
    seen = PageObserver(len(loaded.card.classes))
    with shown("auto") as progress:
        evaluation = evaluate(
            loaded,
            data,
            protocols=protocols,
            split=split,
            reopen=lambda table: open_data(
                settings.model_copy(update={"splits": table, "layout": data.layout})
            ),
            boundary=boundary or None,
            tta=tta,
            bands=settings.bands,
            observers=() if out is None else (seen,),
            folder=None if out is None else out / UNFINISHED,
            progress=progress,
            tell=lambda line: click.echo(f"cvmh: {line}", err=True),
        )
    for line in score_lines(evaluation.scores):
        click.echo(line.rstrip())
    for line in told_areas(evaluation, loaded.card):
        click.echo(line)
    if out is not None:
        write_evaluation(
            out, evaluation, loaded, seen, bands=settings.bands, command=command_line()
        )
        click.echo(f"cvmh: wrote {out / 'scores.json'} and {out / 'report.html'}", err=True)


def _settings(
    dataset: str, root: Path | None, assignments: tuple[str, ...], card: "BundleCard"
) -> "DataSettings":
    """Return the data settings; a known set is divided as in training unless told otherwise."""
    from cvmh.config import DataSettings
    from cvmh.datasets.known import KNOWN
    from cvmh.errors import ConfigError
    from cvmh.settings import merge, parse_assignment, validate

    wanted = merge(*(parse_assignment(text) for text in assignments))
    if other := [key for key in wanted if key != "data"]:
        raise ConfigError(
            f"--set of evaluate takes settings of data, such as data.layout=mmseg, got '{other[0]}'"
        )
    given = {"dataset": dataset, "root": root}
    # A folder of one's own may bear the name of a known set.
    if card.dataset == dataset and dataset in KNOWN and card.splits in KNOWN[dataset].splits:
        given["splits"] = card.splits
    return validate(DataSettings, merge(given, wanted.get("data", {})), source="options")
