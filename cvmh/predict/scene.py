"""From a scene to its mask: plan, read, infer, blend, write."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh import memory
from cvmh.errors import BundleError, ConfigError, OutputError, RasterError
from cvmh.geo.tiling import Span
from cvmh.models.bundle import Bundle
from cvmh.predict.blend import ScoreBuffer
from cvmh.predict.existing import (
    check_outputs,
    is_done,
    output_paths,
    refuse_existing,
    try_folders,
)
from cvmh.predict.identity import key_of, of_this_moment
from cvmh.predict.journal import Journal, Record, folder_of
from cvmh.predict.options import PredictOptions, Warn
from cvmh.predict.outputs import Outputs, write_preview, write_vectors_of
from cvmh.predict.plan import PASSES_AHEAD, ScenePlan
from cvmh.predict.prepare import Job, prepared
from cvmh.predict.pruning import OFF
from cvmh.predict.read import SceneReader, Tile
from cvmh.predict.report import Clock, PredictionReport, make_report, read_report
from cvmh.predict.stream import ahead
from cvmh.progress import Progress, silent

# From this share of the allowed memory on, freed memory is handed back after every stripe.
NEAR_LIMIT = 0.85


def predict_raster(
    scene: str | Path,
    output: str | Path,
    bundle: Bundle,
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
    **options: Any,
) -> PredictionReport:
    """Predict the class of every pixel of a scene and write the mask on the scene's exact grid.

    Memory grows with the scene's width times the tile, never with its height, and stays under
    ``max_memory``. The mask is 255 exactly where the scene has no data; it appears when it is
    complete, or not at all. Finished stripes are kept in a hidden folder beside the mask until
    then: called again with the same settings, the work goes on where it was stopped, and the
    result is the same to the last byte.

    Args:
        scene: a raster of any size, or any dataset name of GDAL.
        output: the mask, ``.tif``.
        bundle: the trained network.
        progress: told of every finished tile.
        warn: told one sentence where the result may be poor; default a Python warning.
        **options: see :class:`cvmh.predict.PredictOptions`.

    Raises:
        RasterError: the scene cannot be read or does not fit the bundle.
        OutputError: an output exists already or cannot be written.
        ConfigError: a setting is out of range or names what this machine does not have, or the
            scene does not fit the memory.
        BundleError: the network's output cannot be used.
        VectorError: the area of interest cannot be used.
    """
    started = time.perf_counter()
    chosen, mask = PredictOptions(**options), Path(output)
    check_outputs(mask, chosen)
    with prepared(scene, mask, bundle, chosen, warn or _warn_python) as job:
        settings = job.settings()
        key = key_of(settings)
        if is_done(job, key):
            return read_report(job)
        now = of_this_moment({**settings, **job.planes._asdict()}, job.raster)
        layout = {"spans": job.spans, "outputs": list(map(str, output_paths(mask, chosen)))}
        with Journal(folder_of(mask), now, layout, overwrite=chosen.overwrite) as journal:
            kept = len(journal)
            # What the stopped call was allowed to write may be there, complete already.
            refuse_existing(job, key, allowed=journal.layout["outputs"] if kept else ())
            try_folders(chosen.outputs().values())
            with _explained(journal, job):
                clock, areas = _predict(job, journal, key, progress or silent)
            seconds = time.perf_counter() - started
            report = make_report(
                job, journal, clock, class_areas=areas, seconds=seconds, stripes_kept=kept
            )
            journal.remove()
    return report


def plan_prediction(
    scene: str | Path,
    output: str | Path,
    bundle: Bundle,
    *,
    warn: Warn | None = None,
    **options: Any,
) -> ScenePlan:
    """Return what :func:`predict_raster` would do and take, without doing it.

    Takes the same arguments and raises the same errors.
    """
    chosen, mask = PredictOptions(**options), Path(output)
    check_outputs(mask, chosen)
    with prepared(scene, mask, bundle, chosen, warn or _warn_python, is_trial=True) as job:
        if not folder_of(mask).exists():
            refuse_existing(job, key_of(job.settings()))
        return job.estimate


def _predict(
    job: Job, journal: Journal, key: str, progress: Progress
) -> tuple[Clock, NDArray[np.float64]]:
    """Compute what the journal does not hold yet, write all outputs; return the class areas too."""
    spans = _spans_of(journal, job)
    clock, meter = Clock(), _Meter(job, spans, progress)
    with Outputs(job, journal.folder, _tags(job, key)) as outputs:
        with job.engine:
            for number, span in enumerate(spans):
                is_last = number == len(spans) - 1
                for index, record in _stripes(job, journal, number, span, clock, meter):
                    if is_last:
                        others = [journal.read(n, index) for n in range(number)]
                        outputs.put(index, [*others, record])
        clock.network = job.engine.seconds
    clock.write = outputs.seconds
    write_vectors_of(job, outputs.confidence, progress)
    write_preview(job)
    return clock, outputs.class_areas


def _spans_of(journal: Journal, job: Job) -> list[Span]:
    """Return the spans that the journal was begun with; they must fit the memory of this call."""
    spans = [Span(*pair) for pair in journal.layout["spans"]]
    if len(spans) < len(job.spans):
        raise ConfigError(
            f"{job.output} was begun with more memory and cannot be continued with less; repeat "
            "with --max-memory as it was, or discard what is finished with --overwrite"
        )
    return spans


def _stripes(
    job: Job, journal: Journal, number: int, span: Span, clock: Clock, meter: "_Meter"
) -> Iterator[tuple[int, Record]]:
    """Yield the finished stripes of a span from top to bottom, from the journal or computed now."""
    plan = job.plan
    done = sum((number, index) in journal for index in range(plan.num_stripes))
    for index in range(done):
        meter.finish(number, index)
        yield index, journal.read(number, index)
    if done == plan.num_stripes:
        return
    reader = SceneReader(job.source, plan, span)
    buffer = ScoreBuffer(plan, span, len(job.card.classes), job.planes)

    def close(index: int) -> Iterator[tuple[int, Record]]:
        stripe = plan.stripe(index)
        if index < done:
            buffer.skip(stripe)
            return
        record = buffer.take(stripe)
        _keep_within(job.estimate.memory_limit)
        journal.append(number, index, record)
        meter.finish(number, index)
        yield index, record

    # Stripes that are finished, but reach into the first that is not, are computed again.
    current = plan.first_touching(done)
    depth = PASSES_AHEAD * job.engine.tiles_a_pass
    tiles = ahead(reader.tiles(current), depth=depth, stop=reader.close)
    with contextlib.closing(tiles):
        for scored in job.engine.run(tiles):
            while current < scored.tile.stripe:
                yield from close(current)
                current += 1
            buffer.add(scored, is_counted=current >= done)
            meter.add(number, scored.tile)
    while current < plan.num_stripes:
        yield from close(current)
        current += 1
    clock.read += reader.seconds
    clock.blend += buffer.seconds


def _keep_within(limit: int | None) -> None:
    """Hand back what is freed but kept for the next pass, before it takes the process too far."""
    if limit is not None and memory.resident() > NEAR_LIMIT * limit:
        memory.release_freed()


class _Meter:
    """Turns tiles and stripes into progress, in tiles of the whole scene."""

    def __init__(self, job: Job, spans: list[Span], progress: Progress) -> None:
        self._progress = progress
        sizes = [[len(s.within(span).columns) for s in job.plan.stripes()] for span in spans]
        self._ends = np.cumsum(np.array(sizes), axis=None).reshape(len(spans), -1)
        self._done = 0

    def add(self, number: int, tile: Tile) -> None:
        """Count a tile that was computed."""
        self._tell(min(self._done + 1, int(self._ends[number, tile.stripe])))

    def finish(self, number: int, stripe: int) -> None:
        """Count what was left of a stripe, which held no data."""
        self._tell(int(self._ends[number, stripe]))

    def _tell(self, done: int) -> None:
        self._done = max(self._done, done)
        self._progress("predict", self._done, int(self._ends[-1, -1]), "tiles")


def _tags(job: Job, key: str) -> dict[str, str]:
    options = job.options
    tags = {"model": job.card.model, "bands": str(job.source.bands), "key": key}
    tags |= {"tile": str(job.source.tile), "overlap": f"{job.overlap:g}"}
    tags |= {} if options.nodata is None else {"nodata": f"{options.nodata:g}"}
    tags |= {} if job.engine.pruning == OFF else {"prune": str(job.engine.pruning)}
    return tags | ({"command": options.command} if options.command else {})


@contextlib.contextmanager
def _explained(journal: Journal, job: Job) -> Iterator[None]:
    """Say after a failure how to go on, and keep finished work only where it can be of use."""
    try:
        yield
    except RasterError as error:
        # A disk or a connection may fail for a moment only.
        if not len(journal):
            raise
        raise RasterError(f"{error}; what is finished is kept, repeat to go on") from error
    except BundleError:
        # The network would fail in the same place again.
        journal.remove()
        raise
    except OutputError as error:
        if not len(journal) or "--resume" in str(error):
            raise
        raise OutputError(f"{error}; then repeat with --resume") from error


def _warn_python(message: str) -> None:
    warnings.warn(message, stacklevel=4)
