"""``cvmh demo``."""

import time
from pathlib import Path

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb


@click.command(cls=Verb)
@click.option("--out", type=PATH, default=Path("demo"), show_default=True, metavar="DIR")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in --out.")
def command(out: Path, seed: int, overwrite: bool) -> None:
    """Make scenes, train the smallest network on them, and show its mask of a scene it never saw.

    Takes some two minutes on two CPU cores and leaves scene.tif, labels.tif, mask.tif, preview.png,
    scores.json and model.safetensors.
    """
    from cvmh.report.demo import run_demo

    started = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"cvmh: {time.monotonic() - started:4.0f} s  {line}", err=True)

    with shown("auto") as progress:
        result = run_demo(out, seed=seed, overwrite=overwrite, progress=progress, tell=tell)
    tell("done")
    for name, row in result.scores.classes.items():
        if row.iou is not None:
            click.echo(f"  {name:<16} IoU {row.iou:.3f}")
    click.echo(f"  {'mean':<16} IoU {result.scores.miou:.3f}")
    click.echo(
        f"\nLook at {out / 'preview.png'}, or open {out / 'mask.tif'} in QGIS. Next:\n"
        f"  cvmh predict YOUR_SCENE.tif -o mask.tif --checkpoint {out / 'model.safetensors'}\n"
        "  cvmh train --dataset folder --data YOUR_TILES\n"
        f"  cvmh info {out / 'model.safetensors'}"
    )
