"""From the CRS of a vector file to the pixels of a raster, with edges kept where they are."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform as to_crs

# An edge that was straight may be off by so many pixels once it is reprojected.
TOLERANCE = 0.05
# A bend that goes both ways may vanish at the middle, so that long edges are halved regardless.
LONG_EDGE = 64
MAX_ROUNDS = 20
# The scene is sampled by so many points a side to find what lies near it.
SAMPLES = 41
# A scene that leaves no wider gap of longitudes than this lies around a pole.
POLAR_GAP = 60

Box = tuple[float, float, float, float]


class Projection:
    """Maps coordinates of one CRS to (column, row) of a raster.

    Args:
        source: the rasterio CRS of the coordinates.
        target: the rasterio CRS of the raster.
        transform: the affine map from (column, row) to the target CRS.
    """

    def __init__(self, source: Any, target: Any, transform: Any) -> None:
        self._source, self._target, self._transform = source, target, transform

    def to_pixels(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Return polygons with coordinates (column, row), of more vertices where edges bend.

        Raises:
            GDAL_ERRORS: a coordinate cannot be reprojected.
        """
        if not len(polygons):
            return polygons
        kind, points, (ring_offsets, *other_offsets) = shapely.to_ragged_array(polygons)
        points, ring_offsets = self._densify(points[:, :2], ring_offsets)
        offsets = (ring_offsets, *other_offsets)
        return np.asarray(shapely.from_ragged_array(kind, self._project(points), offsets))

    def boxes_around(self, height: int, width: int) -> list[Box]:
        """Return (left, bottom, right, top) in the source CRS of what lies near the raster.

        There are two boxes where it crosses the antimeridian, none where nothing is known.
        """
        columns, rows = np.meshgrid(np.linspace(0, width, SAMPLES), np.linspace(0, height, SAMPLES))
        x, y = _apply(self._transform, columns.ravel(), rows.ravel())
        points = np.array(to_crs(self._target, self._source, x, y)[:2])
        points = points[:, np.isfinite(points).all(axis=0)]
        if not points.size:
            return []
        (left, bottom), (right, top) = points.min(axis=1).tolist(), points.max(axis=1).tolist()
        if not self._source.is_geographic:
            return [(left, bottom, right, top)]
        spans = _longitudes(points[0])
        if spans == [(-180.0, 180.0)]:
            # Around a pole, which lies between the samples.
            bottom, top = (bottom, 90.0) if top > 0 else (-90.0, top)
        return [(left, bottom, right, top) for left, right in spans]

    def _densify(
        self, points: NDArray[np.float64], ring_offsets: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Halve edges until none bends by more than the tolerance, or there is no point to it."""
        for turn in range(MAX_ROUNDS):
            projected = self._project(points)
            middles = (points[:-1] + points[1:]) / 2
            straight = (projected[:-1] + projected[1:]) / 2
            bend = np.abs(self._project(middles) - straight).max(axis=1)
            is_bent = bend > TOLERANCE
            if turn == 0:
                length = np.abs(np.diff(projected, axis=0)).max(axis=1)
                is_bent |= length > LONG_EDGE
            # From the last point of a ring to the first of the next there is no edge.
            is_bent[ring_offsets[1:-1] - 1] = False
            where = np.flatnonzero(is_bent) + 1
            if not len(where):
                break
            points = np.insert(points, where, middles[is_bent], axis=0)
            ring_offsets = ring_offsets + np.searchsorted(where, ring_offsets, side="right")
        return points, ring_offsets

    def _project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        if self._source != self._target:
            x, y = (np.array(axis) for axis in to_crs(self._source, self._target, x, y)[:2])
        return np.stack(_apply(~self._transform, x, y), axis=1)


def _apply(
    transform: Any, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def _longitudes(degrees: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return the spans of longitude, within -180..180, that hold all of some longitudes."""
    sorted_degrees = np.sort((degrees + 180) % 360 - 180)
    gaps = np.diff(sorted_degrees, append=sorted_degrees[0] + 360)
    widest = int(gaps.argmax())
    if gaps[widest] < POLAR_GAP:
        return [(-180.0, 180.0)]
    east = float(sorted_degrees[widest])
    west = float(sorted_degrees[(widest + 1) % len(sorted_degrees)])
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
