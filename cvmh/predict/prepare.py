"""Everything that is decided about a prediction before it begins."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvmh import memory
from cvmh.files import without_secrets
from cvmh.geo.estimate import estimate_data
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.geo.tiling import Span, TilePlan
from cvmh.models.bundle import Bundle, BundleCard
from cvmh.models.folding import fold_norms
from cvmh.predict.blend import Planes
from cvmh.predict.identity import bundle_identity, file_identity, scene_identity
from cvmh.predict.infer import Engine
from cvmh.predict.journal import folder_of
from cvmh.predict.kept import estimate_kept
from cvmh.predict.options import AUTO, PredictOptions, Warn
from cvmh.predict.overlap import choose_overlap
from cvmh.predict.plan import (
    Network,
    ScenePlan,
    check_disk,
    estimate_disk,
    estimate_seconds,
    planes_of,
    split_scene,
)
from cvmh.predict.pruning import OFF, Pruning, choose_pruning
from cvmh.predict.source import Source, open_source
from cvmh.predict.threshold import choose_threshold

# The share of what the machine can give that a prediction takes unless it is told.
SHARE_OF_MEMORY = 0.75
# Scenes of so few pixels fit any machine: their network is not tried out first.
SMALL_SCENE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Job:
    """An open scene, and all that was decided about its prediction."""

    source: Source
    output: Path
    bundle: Bundle
    options: PredictOptions
    overlap: float
    plan: TilePlan
    planes: Planes
    engine: Engine
    estimate: ScenePlan
    spans: tuple[Span, ...]

    @property
    def raster(self) -> Raster:
        """The open scene."""
        return self.source.raster

    @property
    def card(self) -> BundleCard:
        """The bundle's card."""
        return self.bundle.card

    def settings(self) -> dict[str, Any]:
        """Return everything that the mask depends on, JSON."""
        options = self.options
        return {
            "scene": scene_identity(self.raster),
            "bundle": bundle_identity(self.bundle),
            "bands": list(self.source.bands),
            "tile": self.source.tile,
            "overlap": self.overlap,
            "device": self.engine.devices[0].type,
            "precision": self.engine.precision,
            "tta": options.tta,
            "nodata": None if options.nodata is None else repr(options.nodata),
            "aoi": None if options.aoi is None else file_identity(options.aoi),
            "resampled": self.plan.is_resampled,
            **({} if self.engine.pruning == OFF else {"prune": str(self.engine.pruning)}),
        }


@contextmanager
def prepared(
    scene: str | Path,
    output: Path,
    bundle: Bundle,
    options: PredictOptions,
    warn: Warn,
    *,
    is_trial: bool = False,
) -> Iterator[Job]:
    """Open a scene, check that it fits the bundle, and decide how to predict it.

    Nothing is written. What can be wrong is found out here. The network is tried out on large
    scenes only, or for a trial, which wants to know the time that it takes.

    Raises:
        CvmhError: the scene, the area of interest or a setting cannot be used, or memory or disk
            do not suffice.
    """
    card, pruning = bundle.card, choose_pruning(bundle, options.prune)
    fast = replace(bundle, network=fold_norms(bundle.network))
    with bounded_cache(), Raster(scene) as raster:
        source = open_source(raster, card, options, warn)
        overlap = _overlap(source, fast, options, pruning, warn)
        plan, planes = source.lay_tiles(overlap), planes_of(options)
        tiles_to_read = sum(int(source.may_hold(stripe).sum()) for stripe in plan.stripes())
        engine = _engine(fast, plan, options, pruning)
        limit = _memory_limit(options)
        is_large = raster.height * raster.width >= SMALL_SCENE or options.max_memory is not None
        # Where the network chooses cells no tile may run dense, to compare with.
        is_choosing = options.prune == AUTO or pruning.keep is not None
        is_measured = is_large or is_trial or is_choosing
        network = _try(engine, source, plan, limit, is_measured=is_measured)
        spans, needed = split_scene(
            raster,
            source.bands,
            plan,
            network=network,
            num_classes=len(card.classes),
            planes=planes,
            limit=limit,
        )
        if options.prune == AUTO:

            def make_engine(bundle: Bundle, pruning: Pruning) -> Engine:
                made = _engine(bundle, plan, options, pruning, is_sample=True)
                made.limit_workers(engine.num_workers)
                return made

            pruning = choose_threshold(source, plan, fast, make_engine, tiles_to_read=tiles_to_read)
            engine.prune(pruning)
        data = estimate_data(raster, source.bands, source.validity) if is_trial else None
        share = None if data is None else float(data.mean())
        kept = None if data is None else estimate_kept(source, plan, data, pruning)
        # Of cells that the network leaves out, it does some of the work.
        work = None if kept is None else kept / pruning.share
        most = tiles_to_read / plan.num_tiles
        pixels = int(raster.height * raster.width * (most if share is None else min(share, most)))
        disk = estimate_disk(pixels, len(card.classes), planes)
        estimate = ScenePlan(
            scene=without_secrets(str(scene)),
            height=raster.height,
            width=raster.width,
            bands=source.bands,
            dtype=raster.dtype_of(source.bands),
            gsd=raster.gsd,
            resampled_to=card.gsd if plan.is_resampled else None,
            tile=source.tile,
            overlap=overlap,
            stripes=plan.num_stripes,
            spans=len(spans),
            tiles=plan.num_tiles,
            tiles_to_read=tiles_to_read,
            share_with_data=share,
            prune=str(pruning),
            share_kept=kept,
            prune_changes=None if pruning.sample is None else str(pruning.sample),
            tiles_a_pass=engine.tiles_a_pass,
            workers=engine.num_workers,
            devices=tuple(map(str, engine.devices)),
            memory=needed,
            memory_limit=limit,
            disk=disk,
            disk_free=check_disk(output, 0 if folder_of(output).exists() else disk),
            seconds=estimate_seconds(plan, tiles_to_read, network, work),
        )
        yield Job(
            source=source,
            output=output,
            bundle=bundle,
            options=options,
            overlap=overlap,
            plan=plan,
            planes=planes,
            engine=engine,
            estimate=estimate,
            spans=spans,
        )


def _engine(
    bundle: Bundle,
    plan: TilePlan,
    options: PredictOptions,
    pruning: Pruning,
    *,
    is_sample: bool = False,
) -> Engine:
    return Engine(
        bundle,
        plan,
        batch=options.batch,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        pruning=pruning,
        is_sample=is_sample,
    )


def _overlap(
    source: Source, bundle: Bundle, options: PredictOptions, pruning: Pruning, warn: Warn
) -> float:
    if options.overlap != AUTO:
        return float(options.overlap)
    return choose_overlap(source, lambda plan: _engine(bundle, plan, options, pruning), warn)


def _memory_limit(options: PredictOptions) -> int | None:
    if options.max_memory is not None:
        return options.max_memory
    free = memory.available()
    return None if free is None else int(SHARE_OF_MEMORY * (memory.resident() + free))


def _try(
    engine: Engine,
    source: Source,
    plan: TilePlan,
    limit: int | None,
    *,
    is_measured: bool,
) -> Network:
    """Run the network once to see what a pass takes, and let no more run than memory bears."""
    num_bands = len(source.bands)
    trial = engine.measure(plan, num_bands) if is_measured else None
    held, bytes_a_pass = (memory.resident(), 0) if trial is None else trial[:2]
    if limit is not None and bytes_a_pass:
        # Half of what is left is for the scene.
        engine.limit_workers(max(1, (limit - held) // 2 // bytes_a_pass))
    return Network(
        tiles_a_pass=engine.tiles_a_pass,
        workers=engine.num_workers,
        bytes_a_pass=bytes_a_pass,
        seconds_a_pass=trial and trial.seconds_a_pass,
        resident=held,
        is_pruning=engine.pruning.without_data,
    )
