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

from cvmh.classes import ClassTable
from cvmh.errors import ConfigError, RasterError
from cvmh.geo.raster import Raster
from cvmh.geo.vectors.chunks import ChunkGrid, ChunkReader
from cvmh.geo.vectors.collecting import Collector
from cvmh.geo.vectors.layers import GdalLayer
from cvmh.geo.vectors.parquet import ParquetLayer
from cvmh.geo.vectors.scene import Scene, open_scene
from cvmh.geo.vectors.sieve import Census, write_sieved
from cvmh.geo.vectors.survey import Survey
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


@dataclass(frozen=True, kw_only=True)
class VectorSummary:
    """What was written: the number of polygons, and the area in m2 by class (NaN if unknown)."""

    num_polygons: int
    areas: dict[str, float]


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
            longitude and latitude. See :class:`cvmh.geo.ground.Ground` for masks without
            a transform.
        classes: names and colours.
        confidence: single band uint8 on the same grid, 0..254 for 0..1, 255 where unknown.
        min_area: in m2; smaller regions join the neighbour with which they share the longest
            border, and those that touch no other class are left out.
        simplify: about how far, in pixels, borders may move where stairs become lines; shared
            borders stay shared. Of what is a few pixels large, only a triangle may be left; 0 keeps
            the corners of the pixels.
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
        scene = open_scene(stack, mask, confidence, classes, path)
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
        survey = Survey(scene, reader, grid, collector, simplify=simplify, crowd=crowd)
        survey.run(progress)
        with explained_writing(path):
            layer.finish()
            publish(folder / path.name, path)
    areas = dict(zip(classes.names, collector.areas.tolist(), strict=True))
    return VectorSummary(num_polygons=collector.num_polygons, areas=areas)


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
