"""The files that a prediction leaves: the mask, the rasters beside it, polygons, a picture."""

import json
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.files import write_complete
from cvmh.geo.ground import Ground
from cvmh.geo.mask import MaskWriter
from cvmh.geo.output import explained
from cvmh.geo.raster import Raster
from cvmh.geo.writer import GridWriter
from cvmh.predict.blend import FULL_SCORE
from cvmh.predict.journal import Piece, Record
from cvmh.predict.prepare import Job
from cvmh.progress import Progress

# Finished stripes that wait for the writer; more would only take memory.
WAITING = 2
# Pixels whose areas differ by no more than this share are equally large.
EVEN = 1e-9
# The most pixels a side of the picture's panels.
PREVIEW_SIDE = 1024


class Outputs:
    """Writes finished stripes, in order, in a thread of its own while the next are computed.

    A context manager: on leaving it without an error the rasters are completed, the mask last.

    Args:
        job: what is predicted.
        folder: for unfinished files, on the disk of the mask.
        tags: of the mask.
    """

    def __init__(self, job: Job, folder: Path, tags: Mapping[str, str]) -> None:
        self._job, self._folder = job, folder
        self._width = job.raster.width
        self._ground = Ground(job.raster.georeference)
        # In m2 by class; NaN where the ground is not known.
        self.class_areas = np.zeros(len(job.card.classes))
        self._far_folders: list[Path] = []
        self._writers = self._make_writers(tags)
        self._waiting: deque[Future[None]] = deque()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        for folder in self._far_folders:
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            # Left in reverse order: the mask, entered first, is completed last.
            for writer in self._writers:
                self._stack.enter_context(writer)
            self._pool = self._stack.enter_context(ThreadPoolExecutor(1, "cvmh-write"))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                self._wait(0)
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)

    def put(self, stripe: int, records: Sequence[Record]) -> None:
        """Write a finished stripe: one record a span, from left to right.

        Raises:
            OutputError: the disk is full.
        """
        self._wait(WAITING)
        self._waiting.append(self._pool.submit(self._write, stripe, records))

    def _wait(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _write(self, index: int, records: Sequence[Record]) -> None:
        started = time.perf_counter()
        stripe = self._job.plan.stripe(index)
        count = stripe.end_final_row - stripe.row
        pieces = [piece for record in records for piece in record.pieces]
        for number, writer in enumerate(self._writers):
            if pieces:
                rows = self._rows(number, count, pieces)
                writer.write_rows(rows)
                if number == 0:
                    self._measure(stripe.row, rows)
            else:
                writer.skip_rows(count)
        self.seconds += time.perf_counter() - started

    def _rows(self, number: int, count: int, pieces: list[Piece]) -> NDArray[Any]:
        """Return whole rows of one plane, without data where no piece lies."""
        first = pieces[0].planes[number]
        if len(pieces) == 1 and first.shape[-1] == self._width:
            return first
        nothing = np.nan if first.dtype.kind == "f" else NODATA_ID
        rows = np.full((*first.shape[:-2], count, self._width), nothing, dtype=first.dtype)
        for piece in pieces:
            plane = piece.planes[number]
            rows[..., piece.column : piece.column + plane.shape[-1]] = plane
        return rows

    def _measure(self, first: int, ids_HW: NDArray[np.uint8]) -> None:
        """Add the areas of the classes in rows of the mask; in degrees no row is like another."""
        rows = np.arange(len(ids_HW), dtype=np.float64) + (first + 0.5)
        areas = self._ground.pixel_areas(rows, np.full(len(rows), self._width / 2))
        # Counting by rows takes seven times as long, and is of use in few CRSs only.
        is_even = np.ptp(areas) <= EVEN * areas[0]
        for number in range(len(self.class_areas)):
            is_class = ids_HW == number
            self.class_areas[number] += (
                np.count_nonzero(is_class) * areas[0]
                if is_even
                else np.count_nonzero(is_class, axis=1) @ areas
            )

    def _make_writers(self, tags: Mapping[str, str]) -> list[GridWriter]:
        """Return the writers, in the order of a piece's planes."""
        job, options = self._job, self._job.options
        writers: list[GridWriter] = [
            MaskWriter(
                job.output,
                job.raster,
                job.card.classes,
                tags=tags,
                overwrite=True,
                folder=self._subfolder(job.output, "mask"),
            )
        ]
        if job.planes.confidence:
            writers.append(self._scores_writer("confidence", self.confidence, ["confidence"]))
        if job.planes.scores:
            assert options.scores is not None, "scores are kept only where they are asked for"
            names = job.card.classes.names
            writers.append(self._scores_writer("scores", Path(options.scores), names))
        return writers

    @property
    def confidence(self) -> Path:
        """The raster of confidences, which polygons need too; hidden if it was not asked for."""
        wanted = self._job.options.confidence
        return self._folder / "confidence.tif" if wanted is None else Path(wanted)

    def _scores_writer(self, name: str, path: Path, band_names: Sequence[str]) -> GridWriter:
        is_float = name == "scores" and self._job.planes.scores == "float16"
        return GridWriter(
            path,
            self._job.raster,
            band_names=band_names,
            dtype="float16" if is_float else "uint8",
            nodata=np.nan if is_float else NODATA_ID,
            scale=None if is_float else 1 / FULL_SCORE,
            tags={"model": self._job.card.model},
            overwrite=True,
            folder=self._subfolder(path, name),
        )

    def _subfolder(self, path: Path, name: str) -> Path:
        """Return a folder for the unfinished files of an output, on its own disk."""
        folder = self._folder / name
        if path.parent.resolve() not in (self._folder.resolve(), self._folder.parent.resolve()):
            folder = path.with_name(f".{path.name}.rows")
            self._far_folders.append(folder)
        with explained(path):
            folder.mkdir(exist_ok=True)
        return folder


def write_vectors_of(job: Job, confidence: Path, progress: Progress) -> None:
    """Write the polygons of a finished mask, if they were asked for."""
    options = job.options
    if options.vectors is None:
        return
    from cvmh.geo.vectors import write_vectors

    write_vectors(
        job.output,
        Path(options.vectors),
        job.card.classes,
        confidence=confidence,
        min_area=options.min_area,
        simplify=options.simplify,
        overwrite=True,
        progress=progress,
    )


def write_preview(job: Job) -> None:
    """Draw a scene and its mask side by side with a legend, if that was asked for."""
    if job.options.preview is None:
        return
    from cvmh.plots import colour_ids, preview, stretch

    bands = job.source.bands[:3] if len(job.source.bands) >= 3 else job.source.bands[:1]
    image = job.raster.read_small(bands, most=PREVIEW_SIDE)
    with Raster(job.output) as mask:
        ids = mask.read_small([1], most=PREVIEW_SIDE)[0]
    panels = {
        "scene": stretch(np.nan_to_num(image), ids != NODATA_ID),
        "mask": colour_ids(ids, job.card.classes),
    }
    preview(Path(job.options.preview), panels, job.card.classes)


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON."""
    write_complete(path, json.dumps(report, indent=1) + "\n")
