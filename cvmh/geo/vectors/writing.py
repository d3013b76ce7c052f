"""Polygons of a finished mask, whatever its size.

The mask is read in square chunks. The regions of a chunk, those without data included, are traced
and simplified together, so that every border is simplified once, for both sides. The rim of a
chunk stays as it is; regions that reach it wait until their last piece is there and are then put
together. All of this happens on the lattice of pixel corners, in whole numbers; coordinates on the
ground come last, so that neighbours keep identical vertices. Memory is that of a chunk, of the
regions that are still open, and of a batch of finished ones.
"""

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.errors import ConfigError, OutputError, RasterError
from cvmh.geo.georeference import LONGITUDE_LATITUDE
from cvmh.geo.legend import clean
from cvmh.geo.raster import Raster
from cvmh.geo.vectors.chunks import Chunk, ChunkGrid, ChunkReader, check_band
from cvmh.geo.vectors.ground import Ground, to_longitude_latitude
from cvmh.geo.vectors.lattice import find_vertices
from cvmh.geo.vectors.layers import FORMATS, Batch, GdalLayer
from cvmh.geo.vectors.parquet import ParquetLayer
from cvmh.geo.vectors.pieces import cut_out
from cvmh.geo.vectors.seams import Frontier, Measures, OpenRegion, assemble
from cvmh.geo.vectors.sieve import Census, write_sieved
from cvmh.geo.vectors.targets import (
    PARQUET,
    check_inputs,
    check_vectors,
    explained_writing,
    new_folder,
    publish,
)
from cvmh.progress import Progress, silent
from cvmh.version import VERSION

# Side of a chunk in pixels; a chunk with more vertices than this is halved. A vertex costs about
# half a kilobyte while borders are simplified, and that takes longer than linear time.
CHUNK, CROWD = 2048, 60_000
# Polygons are written in batches of so many vertices.
BATCH_VERTICES = 500_000
# The confidence 1 in a raster of uint8, whose 255 is nodata.
FULL_CONFIDENCE = 254


@dataclass(frozen=True, kw_only=True)
class VectorSummary:
    """What was written: the number of polygons, and the area in m2 by class (NaN if unknown)."""

    num_polygons: int
    areas: dict[str, float]


class Collector:
    """Takes finished regions, places them on the ground, and writes them batch by batch."""

    def __init__(self, layer: GdalLayer | ParquetLayer, target: Path, scene: "Scene") -> None:
        self._layer, self._target, self._scene = layer, target, scene
        self._polygons: list[NDArray[Any]] = []
        self._measures: list[Measures] = []
        self._num_vertices = 0
        self.num_polygons = 0
        self.areas = np.zeros(len(scene.classes))
        # A file without polygons has its columns all the same.
        self._write(np.empty(0, dtype=object), _no_measures())

    def add(self, polygons: NDArray[Any], measures: Measures) -> None:
        """Add regions whose polygons, in lattice coordinates, are complete."""
        self._polygons.append(polygons)
        self._measures.append(measures)
        self._num_vertices += int(shapely.get_num_coordinates(polygons).sum())
        if self._num_vertices >= BATCH_VERTICES:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        if not self._polygons:
            return
        self._write(np.concatenate(self._polygons), _concatenate(self._measures))
        self._polygons, self._measures, self._num_vertices = [], [], 0

    def _write(self, polygons: NDArray[Any], measures: Measures) -> None:
        scene = self._scene
        placed = shapely.orient_polygons(shapely.transform(polygons, scene.place))
        batch = Batch(
            polygons=placed,
            class_ids=measures.classes.astype(np.int32),
            names=scene.names[measures.classes],
            areas=measures.areas,
            confidences=_mean_confidence(measures) if scene.confidence else None,
        )
        with explained_writing(self._target):
            self._layer.append(batch)
        self.num_polygons += len(polygons)
        self.areas += np.bincount(
            measures.classes, weights=measures.areas, minlength=len(self.areas)
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What polygons are made from, and where they lie."""

    mask: Raster
    confidence: Raster | None
    classes: ClassTable
    ground: Ground
    crs: Any

    @property
    def names(self) -> NDArray[np.object_]:
        """The name of each class as it stands in the file and its style."""
        return np.array([clean(name) for name in self.classes.names], dtype=object)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates, in the CRS of the file, of points (N, 2) of the lattice."""
        x, y = self.ground.place(points[:, 0], points[:, 1])
        if self.crs != self.ground.crs:
            x, y = to_longitude_latitude(self.ground.crs, x, y)
        return np.stack([x, y], axis=1)


def write_vectors(
    mask: str | Path,
    target: str | Path,
    classes: ClassTable,
    *,
    confidence: str | Path | None = None,
    min_area: float = 0.0,
    simplify: float = 1.0,
    overwrite: bool = False,
    tags: Mapping[str, str] | None = None,
    progress: Progress = silent,
    chunk: int = CHUNK,
    crowd: int = CROWD,
) -> VectorSummary:
    """Write one polygon for each 4-connected region of a class in a finished mask.

    Attributes are ``class_id``, ``class`` (its name), ``area_m2`` and, given a confidence raster,
    ``confidence`` (mean, 0..1). The area is that of the region's pixels, whatever ``simplify`` does
    to its outline, so areas add up to the pixels of a class: planar in projected CRSs, on the
    ellipsoid in geographic ones and in Mercator's; null where the mask has no CRS.

    Args:
        mask: single band uint8, class ids and 255 where there is no data.
        target: .gpkg, .fgb, .geojson, .json or .parquet, in the CRS of the mask; GeoJSON in
            longitude and latitude. See :class:`cvmh.geo.vectors.ground.Ground` for masks without
            a transform.
        classes: names and colours.
        confidence: single band uint8 on the same grid, 0..254 for 0..1, 255 where unknown.
        min_area: in m2; smaller regions join the neighbour with which they share the longest
            border, and those that touch no other class are left out.
        simplify: about how far, in pixels, borders may move where stairs become lines; shared
            borders stay shared. 0 keeps the corners of the pixels.
        overwrite: whether an existing file may be replaced.
        tags: kept in GeoPackage and GeoParquet; names get the prefix CVMH_.
        progress: told the rows of the mask that are done.
        chunk: side in pixels of the squares in which the mask is read.
        crowd: number of vertices above which a chunk is halved.

    Raises:
        RasterError: the mask or the confidence cannot be read or does not fit.
        OutputError: the target exists or cannot be written.
        ConfigError: ``min_area`` or ``simplify`` is not a number from 0 up.
    """
    for name, value in (("min_area", min_area), ("simplify", simplify)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} must be a number from 0 up, got {value}")
    path = check_vectors(target, overwrite=overwrite)
    with ExitStack() as stack:
        scene = _open_scene(stack, mask, confidence, classes, path)
        check_inputs(path, scene.mask, scene.confidence)
        if min_area and not scene.ground.has_areas:
            raise RasterError(
                f"min_area needs areas in m2, but {scene.mask.path} has no CRS; "
                "set min_area to 0 or give the mask a CRS with gdal_edit.py -a_srs"
            )
        folder = stack.enter_context(new_folder(path))
        grid = ChunkGrid(scene.mask.height, scene.mask.width, chunk)
        reader = ChunkReader(scene.mask, len(classes))
        if min_area:
            reader = _sieve(stack, folder, scene, reader, grid, min_area, progress)
        layer = _make_layer(folder, path, scene, tags or {})
        collector = Collector(layer, path, scene)
        _collect(scene, reader, grid, collector, simplify, crowd, progress)
        with explained_writing(path):
            layer.finish()
            publish(folder / path.name, path)
    areas = dict(zip(classes.names, collector.areas.tolist(), strict=True))
    return VectorSummary(num_polygons=collector.num_polygons, areas=areas)


def _open_scene(
    stack: ExitStack,
    mask: str | Path,
    confidence: str | Path | None,
    classes: ClassTable,
    path: Path,
) -> Scene:
    raster = stack.enter_context(Raster(mask))
    ground = Ground(raster.georeference)
    crs = ground.crs
    if FORMATS.get(path.suffix.lower(), ("",))[0] == "GeoJSON":
        if crs is None:
            raise OutputError(
                f"{path.name} would be in longitude and latitude, but mask {raster.path} has no "
                "CRS; choose .gpkg, .fgb or .parquet, which can hold pixel coordinates"
            )
        crs = LONGITUDE_LATITUDE
    sure = None
    if confidence is not None:
        sure = stack.enter_context(Raster(confidence))
        check_band(sure, "a confidence raster")
        if sure.shape != raster.shape:
            raise RasterError(
                f"the confidence must lie on the grid of the mask, {raster.height} x "
                f"{raster.width} pixels, but {sure.path} has {sure.height} x {sure.width}"
            )
    return Scene(mask=raster, confidence=sure, classes=classes, ground=ground, crs=crs)


def _sieve(
    stack: ExitStack,
    folder: Path,
    scene: Scene,
    reader: ChunkReader,
    grid: ChunkGrid,
    min_area: float,
    progress: Progress,
) -> ChunkReader:
    """Return a reader of the mask without its small regions."""
    census = Census(scene.mask, scene.ground, min_area)
    for windows in grid.rows():
        for window in windows:
            chunk = reader.read(window)
            if chunk is not None:
                census.add(chunk)
        progress("regions", windows[0].rows.stop, grid.height, "rows")
    sieved = folder / "sieved.tif"
    with explained_writing(folder.parent / sieved.name):
        if not write_sieved(sieved, scene.mask, reader, grid, census):
            return reader
    return ChunkReader(stack.enter_context(Raster(sieved)), len(scene.classes))


def _make_layer(
    folder: Path, path: Path, scene: Scene, tags: Mapping[str, str]
) -> GdalLayer | ParquetLayer:
    given = {f"CVMH_{name.upper()}": value for name, value in tags.items()}
    about = {"CVMH_VERSION": VERSION, "CVMH_CLASSES": json.dumps(scene.classes.to_json()), **given}
    made = folder / path.name
    with explained_writing(path):
        if path.suffix.lower() == PARQUET:
            return ParquetLayer(
                made, crs=scene.crs, tags=about, has_confidence=scene.confidence is not None
            )
        crs = scene.crs.to_wkt() if scene.crs is not None else None
        return GdalLayer(made, path.stem, crs=crs, tags=about, classes=scene.classes)


def _collect(
    scene: Scene,
    reader: ChunkReader,
    grid: ChunkGrid,
    collector: Collector,
    simplify: float,
    crowd: int,
    progress: Progress,
) -> None:
    frontier = Frontier(grid.width, grid.side)
    for windows in grid.rows():
        frontier.start_row()
        for window in windows:
            chunk = reader.read(window)
            if chunk is None:
                frontier.skip(window)
            else:
                _add_chunk(chunk, grid.side, scene, grid, frontier, collector, simplify, crowd)
        end = windows[0].rows.stop
        for region in frontier.close(is_last=end == grid.height):
            collector.add(np.array([assemble(region, frontier)]), _measures_of(region))
        progress("polygons", end, grid.height, "rows")
    collector.flush()


def _add_chunk(
    chunk: Chunk,
    side: int,
    scene: Scene,
    grid: ChunkGrid,
    frontier: Frontier,
    collector: Collector,
    simplify: float,
    crowd: int,
) -> None:
    if chunk.is_empty:
        frontier.skip(chunk.window)
        return
    lattice = find_vertices(chunk.padded, spacing=grid.spacing)
    if len(lattice) > crowd and side > grid.spacing:
        for part in chunk.quarter(side // 2):
            _add_chunk(part, side // 2, scene, grid, frontier, collector, simplify, crowd)
        return
    window = chunk.window
    sure = scene.confidence.read(window, [1])[0] if scene.confidence else None
    pieces = cut_out(chunk, lattice, scene.ground, simplify=simplify, confidence=sure)
    collector.add(pieces.inner, pieces.inner_measures)
    points = np.stack([lattice.columns + window.column, lattice.rows + window.row], axis=1)
    loose = frontier.key(points[lattice.is_loose].astype(np.float64))
    frontier.add(window, chunk.padded, pieces.rims, pieces.outer, pieces.outer_measures, loose)


def _measures_of(region: OpenRegion) -> Measures:
    return Measures(
        classes=np.array([region.class_id], dtype=np.uint8),
        areas=np.array([region.area]),
        confidences=np.array([region.confidence]),
        num_confident=np.array([region.num_confident]),
    )


def _no_measures() -> Measures:
    none = np.empty(0, dtype=np.int64)
    return Measures(
        classes=none.astype(np.uint8),
        areas=none.astype(np.float64),
        confidences=none,
        num_confident=none,
    )


def _concatenate(parts: list[Measures]) -> Measures:
    return Measures(
        classes=np.concatenate([part.classes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        num_confident=np.concatenate([part.num_confident for part in parts]),
    )


def _mean_confidence(measures: Measures) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return measures.confidences / (FULL_CONFIDENCE * measures.num_confident)
