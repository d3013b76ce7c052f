"""Where the pixels of a raster lie on the ground, and how large they are."""

import math
from dataclasses import dataclass
from typing import Any

from rasterio.crs import CRS
from rasterio.transform import from_gcps
from rasterio.warp import transform as to_crs

from cvmh.geo.opening import GDAL_ERRORS

# WGS 84, in metres.
EQUATOR_RADIUS = 6378137.0
ECCENTRICITY_SQUARED = 0.00669437999014
LONGITUDE_LATITUDE = CRS.from_epsg(4326)


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
        crs, affine = self.crs, self.transform
        if self.gcps:
            crs, affine = self.gcps_crs or crs, from_gcps(list(self.gcps))
        if crs is None or affine.is_identity:
            return None
        row, column = height / 2, width / 2
        x, y = (
            affine.a * column + affine.b * row + affine.c,
            affine.d * column + affine.e * row + affine.f,
        )
        corners_x, corners_y = [x, x + affine.a, x + affine.b], [y, y + affine.d, y + affine.e]
        try:
            longitudes, latitudes = to_crs(crs, LONGITUDE_LATITUDE, corners_x, corners_y)[:2]
        except GDAL_ERRORS:
            return None
        area = _parallelogram(longitudes, latitudes)
        return math.sqrt(area) if math.isfinite(area) and area > 0 else None


def _parallelogram(longitudes: Any, latitudes: Any) -> float:
    """Return the area in square metres that three corners, given in degrees, span."""
    sine = math.sin(math.radians(latitudes[0]))
    bend = 1 - ECCENTRICITY_SQUARED * sine * sine
    prime_vertical = EQUATOR_RADIUS / math.sqrt(bend)
    meridian = prime_vertical * (1 - ECCENTRICITY_SQUARED) / bend
    east = prime_vertical * math.cos(math.radians(latitudes[0]))
    x = [math.radians(value - longitudes[0]) * east for value in longitudes[1:]]
    y = [math.radians(value - latitudes[0]) * meridian for value in latitudes[1:]]
    return abs(x[0] * y[1] - x[1] * y[0])
