"""Where the pixels of a raster lie on the ground, and how large they are."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_gcps
from rasterio.warp import transform as to_crs

from cvmh.geo.opening import GDAL_ERRORS

# WGS 84, in metres.
EQUATOR_RADIUS = 6378137.0
ECCENTRICITY_SQUARED = 0.00669437999014
LONGITUDE_LATITUDE = CRS.from_epsg(4326)


class GroundStep(NamedTuple):
    """How many metres on the ground lie between the centres of neighbouring pixels."""

    down: float
    right: float


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """Where the pixels lie: CRS with affine transform, or GCPs with their CRS, or RPCs.

    ``crs`` is a rasterio CRS or None; ``transform`` maps (column, row) to (x, y) and is the
    identity where the raster has none.
    """

    crs: Any
    transform: Any
    gcps: tuple[Any, ...] = ()
    gcps_crs: Any = None
    rpcs: Any = None

    def profile(self) -> dict[str, Any]:
        """Return the creation options that make rasterio write this georeference."""
        options: dict[str, Any] = {"rpcs": self.rpcs} if self.rpcs else {}
        if self.gcps:
            # A GeoTIFF holds GCPs or a transform, and one CRS: that of the GCPs.
            return {**options, "gcps": list(self.gcps), "crs": self.gcps_crs or self.crs}
        if not self.transform.is_identity:
            options["transform"] = self.transform
        return {**options, "crs": self.crs} if self.crs else options

    def ground_sampling_distance(self, height: int, width: int) -> float | None:
        """Return the side in metres of the pixel at the centre, None if it is not known.

        Measured on the ellipsoid for every kind of CRS: degrees, feet, and Web Mercator, whose
        metres shrink away from the equator. The side is that of a square of the pixel's area.
        """
        steps = self._steps(np.array([height / 2]), np.array([width / 2]))
        return None if steps is None else math.sqrt(steps.areas()[0])

    def scale_at(self, row: float, column: float) -> GroundStep | None:
        """Return the metres on the ground from one row, and from one column, to the next.

        Measured on the ellipsoid around a position in pixels, (0.5, 0.5) being the centre of the
        first pixel; in degrees a step to the right shrinks towards the poles. None if it is not
        known: without a CRS, with RPCs only, or where the CRS does not hold.
        """
        steps = self._steps(np.array([row]), np.array([column]))
        if steps is None:
            return None
        down, right = np.hypot(*steps.down)[0], np.hypot(*steps.right)[0]
        return GroundStep(float(down), float(right))

    def _affine(self) -> tuple[Any, Any] | None:
        """Return the CRS and the map to it from (column, row), None if there are none."""
        crs, affine = self.crs, self.transform
        if self.gcps:
            crs, affine = self.gcps_crs or crs, from_gcps(list(self.gcps))
        return None if crs is None or affine.is_identity else (crs, affine)

    def _steps(self, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> "_Steps | None":
        located = self._affine()
        if located is None:
            return None
        crs, (a, b, c, d, e, f, *_) = located
        # Half a pixel to either side: up, down, left, right.
        row = np.stack([rows - 0.5, rows + 0.5, rows, rows])
        column = np.stack([columns, columns, columns - 0.5, columns + 0.5])
        x, y = a * column + b * row + c, d * column + e * row + f
        try:
            found = to_crs(crs, LONGITUDE_LATITUDE, x.ravel().tolist(), y.ravel().tolist())[:2]
        except GDAL_ERRORS:
            return None
        longitudes, latitudes = np.array(found).reshape(2, *row.shape)
        if not np.isfinite(longitudes).all() or not np.isfinite(latitudes).all():
            return None
        down = _metres(longitudes[:2], latitudes[:2])
        right = _metres(longitudes[2:], latitudes[2:])
        steps = _Steps(down, right)
        return steps if (steps.areas() > 0).all() else None


class _Steps(NamedTuple):
    """Steps of one pixel as (2, number) metres to the east and to the north."""

    down: NDArray[np.float64]
    right: NDArray[np.float64]

    def areas(self) -> NDArray[np.float64]:
        """Return the square metres that the two steps span."""
        return np.asarray(np.abs(self.down[0] * self.right[1] - self.down[1] * self.right[0]))


def _metres(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far east and north (2, number) the second of two points lies, in metres.

    Both arguments are (2, number) in degrees; the points are close together.
    """
    sine = np.sin(np.radians(latitudes.mean(axis=0)))
    bend = 1 - ECCENTRICITY_SQUARED * sine * sine
    prime_vertical = EQUATOR_RADIUS / np.sqrt(bend)
    meridian = prime_vertical * (1 - ECCENTRICITY_SQUARED) / bend
    east = prime_vertical * np.sqrt(1 - sine * sine)
    # Neighbours on both sides of the antimeridian are no turn around the globe apart.
    turn = (np.diff(longitudes, axis=0)[0] + 180) % 360 - 180
    return np.stack([np.radians(turn) * east, np.radians(np.diff(latitudes, axis=0)[0]) * meridian])
