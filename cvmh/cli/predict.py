"""``cvmh predict``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb, command_line, newest_bundle
from cvmh.errors import CvmhError
from cvmh.files import make_folder

if TYPE_CHECKING:
    from cvmh.predict import PredictionReport

# Exit code when some of several scenes failed.
SOME_FAILED = 3


class Bands(click.ParamType[tuple[int, ...]]):
    """Band numbers separated by commas, for example ``4,1,2``."""

    name = "N,N,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse the numbers."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be band numbers separated by commas, for example 4,1,2; got '{value}'")


@click.command(cls=Verb)
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "-o",
    "--output",
    "output",
    required=True,
    metavar="OUT",
    help="The mask; a folder or a pattern with {stem} for several scenes.",
)
@click.option(
    "--checkpoint",
    type=PATH,
    metavar="BUNDLE",
    help="The bundle.  [default: the newest under ./runs]",
)
@click.option(
    "--tile", type=click.IntRange(min=1), help="Side of a tile in pixels.  [default: the bundle's]"
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 0.9, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of a tile that neighbours have in common.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Tiles at once."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option(
    "--bands",
    type=Bands(),
    help="Bands of the scene in the bundle's order; a named band is data, even if tagged alpha.",
)
@click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="The value of pixels without data, in bands that declare none; nan is always one.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Predict although the dtype is not that of training, or the scene is a palette.",
)
@click.option("--overwrite", is_flag=True, help="Replace masks that exist.")
@click.option(
    "--progress", type=click.Choice(["auto", "json", "off"]), default="auto", show_default=True
)
def command(
    scenes: tuple[str, ...],
    output: str,
    checkpoint: Path | None,
    tile: int | None,
    overlap: float,
    batch: int,
    device: str,
    precision: str,
    bands: tuple[int, ...] | None,
    nodata: float | None,
    force: bool,
    overwrite: bool,
    progress: str,
) -> None:
    """Segment scenes into masks of class ids on the same grid, 255 where there is no data.

    Example: cvmh predict scene.tif -o mask.tif
    """
    from cvmh.models.bundle import load_bundle
    from cvmh.predict import predict_raster

    targets = _targets(scenes, output)
    bundle = load_bundle(checkpoint or newest_bundle())
    if len(scenes) > 1:
        for folder in {target.parent for target in targets}:
            make_folder(folder)
    failed = 0
    with shown(progress) as callback:
        for scene, target in zip(scenes, targets, strict=True):
            try:
                report = predict_raster(
                    scene,
                    target,
                    bundle,
                    tile=tile,
                    overlap=overlap,
                    batch=batch,
                    device=device,
                    precision=precision,
                    bands=bands,
                    nodata=nodata,
                    force=force,
                    overwrite=overwrite,
                    progress=callback,
                    warn=lambda text: click.echo(f"cvmh: warning: {text}", err=True),
                    command=command_line(),
                )
            except CvmhError as error:
                if len(scenes) == 1:
                    raise
                failed += 1
                click.echo(f"cvmh: error: {scene}: {' '.join(str(error).split())}", err=True)
                continue
            click.echo(target)
            _tell(report)
    if failed:
        click.echo(f"cvmh: {failed} of {len(scenes)} scenes failed", err=True)
        raise click.exceptions.Exit(SOME_FAILED)


def _targets(scenes: tuple[str, ...], output: str) -> list[Path]:
    """Return the mask of each scene: one file, or a file a scene in a folder or by a pattern."""
    from cvmh.geo.output import SUFFIXES

    # Any other suffix is part of a folder's name, such as masks.2026.
    names_mask = Path(output).suffix.lower() in SUFFIXES
    if "{stem}" in output:
        targets = [Path(output.replace("{stem}", Path(scene).stem)) for scene in scenes]
    elif Path(output).is_dir() or (len(scenes) > 1 and not names_mask):
        targets = [Path(output) / f"{Path(scene).stem}.tif" for scene in scenes]
    elif len(scenes) > 1:
        raise click.UsageError(
            f"several scenes need a folder or a pattern with {{stem}}, got -o {output}"
        )
    else:
        targets = [Path(output)]
    if len(set(targets)) < len(targets):
        raise click.UsageError("two scenes have the same name, so their masks would be one file")
    return targets


def _tell(report: "PredictionReport") -> None:
    speed = report.pixels / 1e6 / max(report.seconds, 1e-9)
    click.echo(
        f"cvmh: {report.pixels / 1e6:.1f} Mpx, "
        f"{report.pixels_valid / max(report.pixels, 1):.0%} with data, "
        f"{report.tiles_run} tiles run, {report.tiles_skipped} skipped as empty, "
        f"{report.seconds:.1f} s ({speed:.2f} Mpx/s)",
        err=True,
    )
