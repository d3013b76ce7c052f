"""``cvmh evaluate``."""

from pathlib import Path

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb


@click.command(cls=Verb)
@click.argument("bundle", type=PATH)
@click.option("--dataset", default="folder", show_default=True, metavar="NAME")
@click.option(
    "--data", "root", type=PATH, metavar="ROOT", help="The folder that the data set is in."
)
@click.option("--split", default="test", show_default=True)
@click.option("--out", type=PATH, metavar="DIR", help="Leave scores.json and report.html here.")
def command(bundle: Path, dataset: str, root: Path | None, split: str, out: Path | None) -> None:
    """Score a BUNDLE on a split of labelled images, stitching whole scenes before scoring.

    Example: cvmh evaluate runs/mine/best.safetensors --data my_tiles --split val --out scores
    """
    from cvmh.config import DataSettings, validate
    from cvmh.datasets import open_data
    from cvmh.models.bundle import load_bundle
    from cvmh.report.evaluation import evaluate, write_scores

    settings = validate(DataSettings, {"dataset": dataset, "root": root}, source="options")
    data = open_data(settings)
    loaded = load_bundle(bundle)
    with shown("auto") as progress:
        scores = evaluate(loaded, data, split=split, progress=progress).scores
    for entry in scores:
        click.echo(f"protocol {entry.protocol}, split {entry.split}")
        for name, row in entry.classes.items():
            iou, f1 = (f"{v:.4f}" if v is not None else "     -" for v in (row.iou, row.f1))
            click.echo(f"  {name:<20} IoU {iou}  F1 {f1}  {row.pixels:>12,} px")
        means = {"mIoU": entry.miou, "mF1": entry.mf1, "OA": entry.oa}
        click.echo("  " + "  ".join(f"{k} {v:.4f}" for k, v in means.items() if v is not None))
    if out is not None:
        write_scores(out, scores, title=f"{bundle} on {root}, split {split}")
        click.echo(f"cvmh: wrote {out / 'scores.json'} and {out / 'report.html'}", err=True)
