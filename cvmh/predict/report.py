"""What a prediction did: counts, times, memory, seams, areas."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cvmh import memory
from cvmh.geo.ground import Ground
from cvmh.metrics.areas import AreaEstimates, estimate_areas
from cvmh.models.bundle import versions
from cvmh.predict.journal import Journal
from cvmh.predict.kept import PruningReport, sum_up
from cvmh.predict.outputs import write_report
from cvmh.predict.prepare import Job
from cvmh.predict.pruning import OFF
from cvmh.predict.seams import summarise

# What estimates for a scene rest on, which nothing in the scene can show.
TRANSFER = (
    "the estimates rest on split '{split}' of the training data, {extent}; they hold only if the "
    "network confuses classes in this scene as it does there"
)
CHOSEN = (
    "cells were left out by choice (--prune {pruning}), but the confusion that the estimates rest "
    "on is that of the dense network"
)


@dataclass(kw_only=True)
class Clock:
    """Seconds that the parts of the pipeline were busy; they work at the same time."""

    read: float = 0.0
    network: float = 0.0
    blend: float = 0.0
    write: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    """What a prediction did.

    ``class_pixels`` counts the mask's pixels by class id and ``class_areas`` gives them in m2,
    None where the ground is not known; ``area`` is that of all pixels with data.
    ``area_estimates`` says in m2 how large the classes are likely to be in truth, with their
    errors; None where the ground is not known or the bundle carries no sample. ``seconds`` is
    the wall time of this call, ``busy`` that of the parts, in which several threads may add up.
    ``peak_memory`` is of the whole process in bytes. ``stripes_kept`` were finished by an earlier
    call; ``was_done`` says that nothing was left to do, and nothing was counted again: all counts
    are 0. ``seams`` is described in
    :func:`cvmh.predict.seams.summarise`; ``pruning`` is None where nothing is ever left out.
    """

    scene: str
    output: Path
    outputs: dict[str, Path]
    bands: tuple[int, ...]
    overlap: float
    tiles_run: int
    tiles_skipped: int
    pixels: int
    pixels_valid: int
    class_pixels: tuple[int, ...]
    classes: tuple[str, ...]
    area: float | None
    class_areas: tuple[float, ...] | None
    area_estimates: AreaEstimates | None
    seams: dict[str, Any]
    pruning: PruningReport | None
    seconds: float
    busy: dict[str, float]
    peak_memory: int
    peak_gpu_memory: int
    stripes_kept: int
    was_done: bool
    plan: dict[str, Any]
    versions: dict[str, str]
    command: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON, with speeds by unique pixels."""
        facts = asdict(self)
        facts["output"] = str(self.output)
        facts["outputs"] = {name: str(path) for name, path in self.outputs.items()}
        seconds = max(self.seconds, 1e-9)
        facts["pixels_per_second"] = self.pixels / seconds
        facts["km2_per_second"] = None if self.area is None else self.area / 1e6 / seconds
        return facts


def make_report(
    job: Job,
    journal: Journal,
    clock: Clock,
    *,
    class_areas: NDArray[np.float64],
    seconds: float,
    stripes_kept: int,
) -> PredictionReport:
    """Sum up the journal of a complete prediction, and write the report if it was asked for."""
    entries = [journal.facts(span, stripe) for span, stripe in journal.keys()]
    counts = np.zeros(len(job.card.classes), dtype=np.int64)
    for facts in entries:
        counts += facts["class_pixels"]
    tiles_run = sum(facts["tiles"] for facts in entries)
    # Without a CRS, or where RPCs or control points do not hold everywhere: a part is no answer.
    areas = tuple(class_areas.tolist()) if _has_areas(job, class_areas) else None
    report = PredictionReport(
        scene=job.estimate.scene,
        output=job.output,
        outputs=job.options.outputs(),
        bands=job.source.bands,
        overlap=job.overlap,
        tiles_run=tiles_run,
        tiles_skipped=job.plan.num_tiles - tiles_run,
        pixels=job.plan.height * job.plan.width,
        pixels_valid=int(counts.sum()),
        class_pixels=tuple(counts.tolist()),
        classes=tuple(job.card.classes.names),
        area=None if areas is None else sum(areas),
        class_areas=areas,
        area_estimates=None if areas is None else _estimate(job, areas),
        seams=summarise(entries, job.card.classes),
        pruning=_pruning(job, entries),
        seconds=seconds,
        busy=asdict(clock),
        peak_memory=memory.peak_resident(),
        peak_gpu_memory=_peak_gpu_memory(job),
        stripes_kept=stripes_kept,
        was_done=False,
        plan=job.estimate.to_json(),
        versions=versions(),
        command=job.options.command,
    )
    if job.options.report is not None:
        write_report(Path(job.options.report), report.to_json())
    return report


def _pruning(job: Job, entries: list[dict[str, Any]]) -> PruningReport | None:
    engine = job.engine
    if engine.pruning == OFF:
        return None
    return sum_up(
        entries,
        engine.pruning,
        engine.spent,
        asked=job.options.prune,
        num_workers=engine.num_workers,
    )


def _has_areas(job: Job, class_areas: NDArray[np.float64]) -> bool:
    return Ground(job.raster.georeference).has_areas and bool(np.isfinite(class_areas).all())


def _estimate(job: Job, areas: tuple[float, ...]) -> AreaEstimates | None:
    sample, names = job.card.area_sample, job.card.classes.names
    if sample is None:
        return None
    found = estimate_areas(np.array(areas), sample.counts(len(names)), names)
    caveats = [TRANSFER.format(split=sample.split, extent=sample.extent)]
    if job.engine.pruning.keep is not None:
        caveats.append(CHOSEN.format(pruning=job.engine.pruning))
    return replace(found, notes=(*caveats, *found.notes))


def _peak_gpu_memory(job: Job) -> int:
    devices = [device for device in job.engine.devices if device.type == "cuda"]
    return max((torch.cuda.max_memory_allocated(device) for device in devices), default=0)


def read_report(job: Job) -> PredictionReport:
    """Return the report of a prediction that was done before: of its mask, not of its making."""
    counts = np.zeros((1, len(job.card.classes)), dtype=np.int64)
    return PredictionReport(
        scene=job.estimate.scene,
        output=job.output,
        outputs=job.options.outputs(),
        bands=job.source.bands,
        overlap=job.overlap,
        tiles_run=0,
        tiles_skipped=0,
        pixels=job.plan.height * job.plan.width,
        pixels_valid=0,
        class_pixels=tuple(counts.sum(axis=0).tolist()),
        classes=tuple(job.card.classes.names),
        area=None,
        class_areas=None,
        area_estimates=None,
        seams={},
        pruning=None,
        seconds=0.0,
        busy=asdict(Clock()),
        peak_memory=memory.peak_resident(),
        peak_gpu_memory=0,
        stripes_kept=0,
        was_done=True,
        plan=job.estimate.to_json(),
        versions=versions(),
        command=job.options.command,
    )
