"""From places on the lattice of pixels to coordinates and areas on the ground."""

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import TransformWarning
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform as to_crs

from cvmh.geo.georeference import (
    ECCENTRICITY_SQUARED,
    EQUATOR_RADIUS,
    LONGITUDE_LATITUDE,
    Georeference,
)

# Mercator's metres, the web's included, grow away from the equator; Transverse Mercator's do not.
MERCATOR = re.compile(r'PROJECTION\["(Mercator|Popular_Visualisation)')

Array = NDArray[np.float64]


class Points(NamedTuple):
    """Coordinates (N,) each: easting or longitude, northing or latitude."""

    x: Array
    y: Array


class Ground:
    """Where the lattice of a raster lies.

    A raster with a transform lies where that puts it. One with ground control points only lies
    where GDAL's polynomial through them puts it, as gdalwarp does by default; one with RPCs only
    at the mean height of their model, in longitude and latitude. Without any of these coordinates
    are pixels, with y = -row, which is where QGIS shows such a raster.

    Args:
        georeference: that of the raster.
    """

    def __init__(self, georeference: Georeference) -> None:
        self.crs, self._locate = _choose(georeference)
        self._is_curved = self.crs is not None and _is_curved(self.crs)
        self._unit = _metres(self.crs)
        transform = georeference.transform
        # Areas may be taken a row at a time where rows are circles of latitude.
        self._rows_are_even = not georeference.gcps and transform.b == 0 == transform.d
        self._rows_are_even &= not transform.is_identity

    @property
    def has_areas(self) -> bool:
        """True if areas in square metres can be told."""
        return self._is_curved or self._unit is not None

    def place(self, columns: Array, rows: Array) -> Points:
        """Return the coordinates of points of the lattice in ``crs``."""
        x, y = self._locate(columns, rows)
        return Points(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))

    def pixel_areas(self, rows: Array, columns: Array) -> Array:
        """Return the area in m2 of pixels, given by their centres in lattice units; NaN if unknown.

        Planar in projected CRSs; on the ellipsoid in geographic ones and in Mercator's.
        """
        if not self.has_areas:
            return np.full(len(rows), np.nan)
        if not self._rows_are_even:
            return self._measure(rows, columns)
        distinct, positions = np.unique(rows, return_inverse=True)
        middle = np.full(len(distinct), columns.mean())
        return self._measure(distinct, middle)[positions]

    def _measure(self, rows: Array, columns: Array) -> Array:
        """Return the area of the parallelogram that the mid-lines of each pixel span."""
        shifts = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
        x, y = self.place(
            (columns + shifts[:, :1]).ravel(),
            (rows + shifts[:, 1:]).ravel(),
        )
        if self._is_curved:
            x, y = _to_metres(*to_longitude_latitude(self.crs, x, y), parts=len(shifts))
        (x0, x1, x2, x3), (y0, y1, y2, y3) = x.reshape(4, -1), y.reshape(4, -1)
        area = np.abs((x1 - x0) * (y3 - y2) - (x3 - x2) * (y1 - y0))
        return area if self._is_curved else area * (self._unit or 1) ** 2


def to_longitude_latitude(crs: Any, x: Array, y: Array) -> Points:
    """Return points in longitude and latitude (WGS 84, degrees)."""
    if crs == LONGITUDE_LATITUDE:
        return Points(x, y)
    longitudes, latitudes = to_crs(crs, LONGITUDE_LATITUDE, x, y)[:2]
    return Points(np.asarray(longitudes), np.asarray(latitudes))


def _choose(georeference: Georeference) -> tuple[Any, Callable[[Array, Array], Any]]:
    affine, crs = georeference.transform, georeference.crs
    transformer: Any
    if georeference.gcps:
        crs = georeference.gcps_crs or crs
        transformer = GCPTransformer(list(georeference.gcps))
    elif not affine.is_identity:
        a, b, c, d, e, f = affine[:6]
        return crs, lambda columns, rows: (
            a * columns + b * rows + c,
            d * columns + e * rows + f,
        )
    elif georeference.rpcs:
        crs = LONGITUDE_LATITUDE
        rpcs = georeference.rpcs
        transformer = RPCTransformer(rpcs, rpc_height=rpcs.height_off)
    else:
        return None, lambda columns, rows: (columns, -rows)
    return crs, lambda columns, rows: _place_by(transformer, columns, rows)


def _place_by(transformer: Any, columns: Array, rows: Array) -> Any:
    # Where a model does not hold, its points are infinite, and rasterio warns; here, unknown.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransformWarning)
        places = np.asarray(transformer.xy(rows, columns, offset="ul"), dtype=np.float64)
    return np.where(np.isfinite(places), places, np.nan)


def _is_curved(crs: Any) -> bool:
    return not crs.is_projected or bool(MERCATOR.search(crs.to_wkt(version="WKT1_GDAL")))


def _metres(crs: Any) -> float | None:
    """Return the unit of a projected CRS in metres."""
    return float(crs.linear_units_factor[1]) if crs is not None and crs.is_projected else None


def _to_metres(longitudes: Array, latitudes: Array, *, parts: int) -> Points:
    """Unroll the ellipsoid around the middle of each group of points, given group after group."""
    degrees = longitudes.reshape(parts, -1)
    # Neighbours on either side of the antimeridian are near each other all the same.
    east = np.radians((degrees - degrees[:1] + 180) % 360 - 180)
    north = np.radians(latitudes.reshape(parts, -1))
    middle = north.mean(axis=0)
    bend = 1 - ECCENTRICITY_SQUARED * np.sin(middle) ** 2
    prime_vertical = EQUATOR_RADIUS / np.sqrt(bend)
    meridian = prime_vertical * (1 - ECCENTRICITY_SQUARED) / bend
    x = east * prime_vertical * np.clip(np.cos(middle), 0, None)
    return Points(x.ravel(), (north * meridian).ravel())
