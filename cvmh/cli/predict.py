"""``cvmh predict``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cvmh.cli.progress import shown
from cvmh.cli.scenes import (
    STEM,
    find_masks,
    find_scenes,
    in_standing_folder,
    names_folder,
    place_beside,
)
from cvmh.cli.sizes import MemorySize
from cvmh.cli.verb import PATH, Verb, command_line, newest_bundle
from cvmh.errors import CvmhError
from cvmh.files import make_folder

if TYPE_CHECKING:
    from cvmh.predict import PredictionReport

# Exit code when some of several scenes failed.
SOME_FAILED = 3
# What does not change the mask is not kept in it: the same mask has the same bytes.
PASSING = {
    "--batch": 1,
    "--max-memory": 1,
    "--progress": 1,
    "--report": 1,
    "--overwrite": 0,
    "--resume": 0,
    "--verbose": 0,
    "-v": 0,
    "-vv": 0,
}


# The outputs beside the mask.
BESIDE = ("scores", "confidence", "vectors", "preview", "report")
# Of the library too, whose imports are heavy.
PRUNE_MODES = ("off", "nodata", "auto")


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


class Overlap(click.ParamType[float | str]):
    """A share from 0 to below 0.9, or ``auto``."""

    name = "SHARE|auto"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Parse the share."""
        if value == "auto":
            return "auto"
        share = click.FloatRange(0, 0.9, max_open=True)
        return share.convert(value, param, ctx)  # type: ignore[arg-type]


class Prune(click.ParamType[float | str]):
    """A mode of pruning, or the share of cells to keep."""

    name = "|".join((*PRUNE_MODES, "RATIO"))

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Parse the mode or the share."""
        if value in PRUNE_MODES:
            return str(value)
        try:
            share = float(str(value))
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(
                f"must be {', '.join(PRUNE_MODES)} or a share of cells to keep, above 0 and at "
                f"most 1; got '{value}'"
            )
        return share


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
    type=Overlap(),
    default=0.25,
    show_default=True,
    help="Share of a tile that neighbours have in common; auto finds the smallest that will do.",
)
@click.option("--tta", is_flag=True, help="Average over flips and turns: 8 times the work.")
@click.option(
    "--prune",
    type=Prune(),
    default="nodata",
    show_default=True,
    help="Leave out cells of tiles: none, those without data, also all but a share of the others, "
    "or as many as change little.",
)
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
    "--aoi",
    metavar="FILE",
    help="Polygons (GeoPackage, GeoJSON ...) outside which nothing is predicted.",
)
@click.option(
    "--resample/--no-resample",
    default=True,
    show_default=True,
    help="Show the network pixels of the size of training's, where the scene's differ much.",
)
@click.option("--scores", metavar="FILE", help="Also a raster of scores, one band a class.")
@click.option(
    "--scores-type",
    type=click.Choice(["uint8", "float16"]),
    default="uint8",
    show_default=True,
    help="How scores are kept; uint8 counts 1/254.",
)
@click.option("--confidence", metavar="FILE", help="Also a raster of the mask's own score.")
@click.option(
    "--vectors", metavar="FILE", help="Also polygons: .gpkg (styled), .fgb, .geojson or .parquet."
)
@click.option(
    "--min-area",
    type=click.FloatRange(min=0),
    default=0,
    metavar="M2",
    help="Polygons smaller than this join their neighbours.",
)
@click.option(
    "--simplify",
    type=click.FloatRange(min=0),
    default=1,
    show_default=True,
    metavar="PIXELS",
    help="How far the borders of polygons may move; 0 keeps the stairs.",
)
@click.option("--preview", metavar="FILE", help="Also a picture with a legend, .png.")
@click.option("--report", metavar="FILE", help="What was done and how long it took, .json.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Tiles at once on a GPU; a CPU takes what suits its cache.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:N or mps; several GPUs as cuda:0,cuda:1.",
)
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option(
    "--max-memory",
    type=MemorySize(),
    help="The most memory of the whole process, such as 4G.  [default: 3/4 of what is free]",
)
@click.option(
    "--force",
    is_flag=True,
    help="Predict although the dtype is not that of training, or the scene is a palette.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace outputs that exist, and discard unfinished work."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Skip scenes whose mask is there, made with these settings, and go on with the others.",
)
@click.option("--dry-run", is_flag=True, help="Only say what it would take.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: say it as JSON.")
@click.option(
    "--progress", type=click.Choice(["auto", "json", "off"]), default="auto", show_default=True
)
def command(
    scenes: tuple[str, ...],
    output: str,
    checkpoint: Path | None,
    dry_run: bool,
    as_json: bool,
    progress: str,
    scores: str | None,
    confidence: str | None,
    vectors: str | None,
    preview: str | None,
    report: str | None,
    **options: Any,
) -> None:
    """Segment scenes into masks of class ids on the same grid, 255 where there is no data.

    SCENE is a raster, a VRT, a URL, a pattern such as "in/*.tif", or a .txt file with one a line.

    Example: cvmh predict scene.tif -o mask.tif
    """
    from cvmh.geo.output import SUFFIXES

    if not output:
        raise click.UsageError("-o must name the mask, got an empty text")
    if as_json and not dry_run:
        raise click.UsageError("--json belongs to --dry-run; --report FILE writes JSON of a run")
    found = find_scenes(scenes)
    masks = find_masks(found, output, SUFFIXES)
    beside = place_beside(
        found,
        {
            "scores": scores,
            "confidence": confidence,
            "vectors": vectors,
            "preview": preview,
            "report": report,
        },
    )
    # A pattern of the shell or a list may mean but one scene.
    makes_folders = len(found) > 1 or STEM in output or names_folder(output)
    bundle_path = checkpoint or newest_bundle()
    if dry_run:
        predict_one = _planner(bundle_path, as_json, makes_folders=makes_folders)
    else:
        predict_one = _predictor(bundle_path, progress)
    if makes_folders and not dry_run:
        _make_folders(masks, beside)
    failed = 0
    for scene, mask, others in zip(found, masks, beside, strict=True):
        try:
            predict_one(scene, mask, {**options, **others})
        except CvmhError as error:
            if len(found) == 1:
                raise
            failed += 1
            click.echo(f"cvmh: error: {scene}: {' '.join(str(error).split())}", err=True)
    if failed:
        click.echo(f"cvmh: {failed} of {len(found)} scenes failed", err=True)
        raise click.exceptions.Exit(SOME_FAILED)


Predict = Callable[[str, Path, dict[str, Any]], None]


def _predictor(bundle_path: Path, progress: str) -> Predict:
    from cvmh.models.bundle import load_bundle
    from cvmh.predict import predict_raster

    bundle = load_bundle(bundle_path)

    def predict(scene: str, mask: Path, options: dict[str, Any]) -> None:
        with shown(progress) as callback:
            report = predict_raster(
                scene,
                mask,
                bundle,
                progress=callback,
                warn=_warn,
                command=command_line(without=PASSING),
                **options,
            )
        click.echo(mask)
        _tell(report)

    return predict


def _planner(bundle_path: Path, as_json: bool, *, makes_folders: bool) -> Predict:
    from cvmh.models.bundle import load_bundle
    from cvmh.predict import plan_prediction

    bundle = load_bundle(bundle_path)

    def plan(scene: str, mask: Path, options: dict[str, Any]) -> None:
        if makes_folders:
            # Their folders would be made, which a dry run does not.
            mask = in_standing_folder(mask)
            for name in BESIDE:
                if options[name] is not None:
                    options[name] = in_standing_folder(Path(options[name]))
        found = plan_prediction(scene, mask, bundle, warn=_warn, **options)
        click.echo(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))

    return plan


def _make_folders(masks: Sequence[Path], beside: Sequence[dict[str, Any]]) -> None:
    files = [*masks, *(Path(path) for others in beside for path in others.values() if path)]
    for folder in {path.parent for path in files}:
        make_folder(folder)


def _warn(text: str) -> None:
    click.echo(f"cvmh: warning: {text}", err=True)


def _tell(report: "PredictionReport") -> None:
    if report.was_done:
        click.echo(f"cvmh: {report.output} is complete, nothing to do", err=True)
        return
    speed = report.pixels / 1e6 / max(report.seconds, 1e-9)
    share = report.seams.get("share")
    seams = "" if share is None else f", neighbouring tiles agree on {1 - share:.1%}"
    click.echo(
        f"cvmh: {report.pixels / 1e6:.1f} Mpx, "
        f"{report.pixels_valid / max(report.pixels, 1):.0%} with data, "
        f"{report.tiles_run} tiles run, {report.tiles_skipped} skipped as empty{seams}, "
        f"{report.seconds:.1f} s ({speed:.2f} Mpx/s)",
        err=True,
    )
    _tell_pruned(report)


def _tell_pruned(report: "PredictionReport") -> None:
    pruning = report.pruning
    if pruning is None or not pruning.tiles_pruned:
        return
    saved, sample = pruning.estimated_seconds_saved, pruning.sample
    verb = "saved" if saved is None or saved >= 0 else "cost"
    gain = "" if saved is None else f", which {verb} about {abs(saved):.1f} s"
    click.echo(
        f"cvmh: {pruning.tiles_pruned} tiles pruned, {pruning.mean_kept_share:.0%} of the cells of "
        f"all that ran computed{gain}{'' if sample is None else f'; {sample}'}",
        err=True,
    )
