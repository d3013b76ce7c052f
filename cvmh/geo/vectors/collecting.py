"""Finished regions on their way to the file."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.geo.vectors.layers import Batch, GdalLayer
from cvmh.geo.vectors.measures import Measures, concatenate, no_measures
from cvmh.geo.vectors.parquet import ParquetLayer
from cvmh.geo.vectors.scene import Scene
from cvmh.geo.vectors.targets import explained_writing

# Polygons are written in batches of so many vertices.
BATCH_VERTICES = 500_000


class Collector:
    """Takes finished regions, places them on the ground, and writes them batch by batch."""

    def __init__(self, layer: GdalLayer | ParquetLayer, target: Path, scene: Scene) -> None:
        self._layer, self._target, self._scene = layer, target, scene
        self._polygons: list[NDArray[Any]] = []
        self._measures: list[Measures] = []
        self._num_vertices = 0
        self.num_polygons = 0
        self.areas = np.zeros(len(scene.classes))
        # A file without polygons has its columns all the same.
        self._write(np.empty(0, dtype=object), no_measures())

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
        self._write(np.concatenate(self._polygons), concatenate(self._measures))
        self._polygons, self._measures, self._num_vertices = [], [], 0

    def _write(self, polygons: NDArray[Any], measures: Measures) -> None:
        scene = self._scene
        placed = shapely.orient_polygons(shapely.transform(polygons, scene.place))
        batch = Batch(
            polygons=placed,
            class_ids=measures.classes.astype(np.int32),
            names=scene.names[measures.classes],
            areas=measures.areas,
            confidences=measures.mean_confidences() if scene.confidence else None,
        )
        with explained_writing(self._target):
            self._layer.append(batch)
        self.num_polygons += len(polygons)
        self.areas += np.bincount(
            measures.classes, weights=measures.areas, minlength=len(self.areas)
        )
