"""Which ground a raster covers, and how much of it two rasters have in common."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform as to_crs

from cvmh.geo.georeference import LONGITUDE_LATITUDE
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.raster import Raster


class Footprint(NamedTuple):
    """The box of a raster in its own CRS, and how many metres a unit of it is up and right.

    For a raster that is turned against its CRS, the box is the one around it.
    """

    crs: Any
    left: float
    bottom: float
    right: float
    top: float
    metres_x: float
    metres_y: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top)."""
        return self.left, self.bottom, self.right, self.top


def find_footprint(raster: Raster) -> Footprint | None:
    """Return the footprint of a raster, None if it has no CRS or transform."""
    transform = raster.transform
    if raster.crs is None or transform.is_identity or raster.gcps:
        return None
    step = raster.georeference.scale_at(raster.height / 2, raster.width / 2)
    if step is None:
        return None
    # Units per column and per row; of a turned raster both have two parts.
    right = np.hypot(transform.a, transform.d)
    down = np.hypot(transform.b, transform.e)
    return Footprint(raster.crs, *find_box(raster), step.right / right, step.down / down)


def find_box(raster: Raster) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top of a raster in the units of its transform."""
    a, b, c, d, e, f, *_ = raster.transform
    columns, rows = (0, raster.width, 0, raster.width), (0, 0, raster.height, raster.height)
    xs = [a * column + b * row + c for column, row in zip(columns, rows, strict=True)]
    ys = [d * column + e * row + f for column, row in zip(columns, rows, strict=True)]
    return min(xs), min(ys), max(xs), max(ys)


def boxes_in_metres(footprints: list[Footprint]) -> NDArray[np.float64]:
    """Return boxes (number, 4) of left, bottom, right, top in metres that can be compared.

    Footprints of one CRS keep its axes; otherwise longitudes and latitudes serve, of which a
    degree is as long as at the footprints' mean latitude.
    """
    boxes = np.array([footprint.box for footprint in footprints], dtype=np.float64).reshape(-1, 4)
    if len({footprint.crs.to_wkt() for footprint in footprints}) <= 1:
        scale = np.median([(f.metres_x, f.metres_y) for f in footprints], axis=0)
    else:
        boxes = np.array([_degrees(footprint) for footprint in footprints])
        latitude = np.radians(np.nanmean(boxes[:, [1, 3]]))
        scale = np.array([111_320 * np.cos(latitude), 110_574])
    return np.asarray(boxes * np.tile(scale, 2))


def gaps_between(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (number, 2): how far boxes lie from one box in x and in y, negative where they meet.

    A pair of negative numbers is the extent of the overlap.
    """
    left = np.maximum(one[0] - others[:, 2], others[:, 0] - one[2])
    below = np.maximum(one[1] - others[:, 3], others[:, 1] - one[3])
    # A small box inside a large one overlaps by its own size, not by its distance to an edge.
    widths = np.minimum(one[2] - one[0], others[:, 2] - others[:, 0])
    heights = np.minimum(one[3] - one[1], others[:, 3] - others[:, 1])
    return np.stack([np.maximum(left, -widths), np.maximum(below, -heights)], axis=1)


def _degrees(footprint: Footprint) -> tuple[float, float, float, float]:
    left, bottom, right, top = footprint.box
    try:
        xs, ys = to_crs(
            footprint.crs,
            LONGITUDE_LATITUDE,
            [left, right, right, left],
            [bottom, bottom, top, top],
        )[:2]
    except GDAL_ERRORS:
        return (np.nan,) * 4
    return min(xs), min(ys), max(xs), max(ys)
