"""An area of interest read from a vector file and laid over a raster."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from cvmh.errors import VectorError
from cvmh.geo.area import Area
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.projection import Box, Projection
from cvmh.geo.raster import Raster

# How QGIS names a layer of a file: areas.gpkg|layername=fields.
LAYER_MARK = "|layername="
# What lies near a scene, as a share of its size: its sides may bend between the samples.
MARGIN = 0.05


class _Layer(NamedTuple):
    """Polygons of one layer and their CRS; ``bounds`` are left, bottom, right, top."""

    polygons: NDArray[Any]
    crs: Any
    bounds: tuple[float, float, float, float]


def open_area(path: str | Path, raster: Raster, *, layer: str | None = None) -> Area:
    """Read the polygons of a vector file as an area of a raster.

    They are reprojected to the CRS of the raster; their edges are densified first, so that an
    edge that is straight in the file stays where it is on the ground.

    Args:
        path: GeoPackage, GeoJSON, FlatGeobuf, Shapefile, or whatever else GDAL reads; a layer
            may be named as QGIS does, ``areas.gpkg|layername=fields``.
        raster: the open scene.
        layer: the layer; default the first one that has polygons.

    Raises:
        VectorError: the file cannot be read, has no polygons or no CRS, the scene has no CRS
            and transform, or the area lies wholly outside it.
    """
    name, _, marked = str(path).partition(LAYER_MARK)
    _check_raster(raster, name)
    found = _read_layer(name, layer or marked or None, raster)
    projection = Projection(found.crs, raster.crs, raster.transform)
    scene = projection.boxes_around(raster.height, raster.width)
    try:
        polygons = projection.to_pixels(_near(found.polygons, scene))
    except GDAL_ERRORS as error:
        raise VectorError(
            f"{name} cannot be reprojected to the CRS of {raster.path} ({error}); "
            "reproject it with ogr2ogr -t_srs"
        ) from error
    area = Area(shapely.make_valid(polygons), raster.height, raster.width)
    if area.is_empty:
        raise VectorError(
            f"the area of interest {name} lies wholly outside {raster.path}: it spans "
            f"{_spelt([found.bounds])}, the scene {_spelt(scene)} ({found.crs.to_string()[:40]})"
        )
    return area


def _check_raster(raster: Raster, name: str) -> None:
    if raster.gcps:
        reason = "it has only ground control points; warp it first with gdalwarp"
    elif raster.crs is None and raster.rpcs:
        reason = "it has only RPCs; warp it first with gdalwarp -rpc"
    elif raster.crs is None or raster.transform.is_identity:
        reason = "it has none; assign them with gdal_edit.py -a_srs and -a_ullr"
    else:
        return
    raise VectorError(
        f"{raster.path} must have a CRS and a transform to lay the area of interest {name} "
        f"over it, but {reason}"
    )


def _read_layer(name: str, layer: str | None, raster: Raster) -> _Layer:
    chosen = _choose_layer(name, layer)
    try:
        meta, _, geometries, _ = pyogrio.raw.read(name, layer=chosen, columns=[], force_2d=True)
    except (DataSourceError, DataLayerError) as error:
        raise VectorError(f"layer {chosen} of {name} cannot be read ({error})") from error
    shapes = shapely.from_wkb(geometries, on_invalid="fix")
    shapes = shapes[~shapely.is_missing(shapes)]
    if not len(shapes):
        raise VectorError(f"{name} must hold polygons, but its layer {chosen} is empty")
    polygons = _polygons_of(shapely.make_valid(shapes))
    if not len(polygons):
        kinds = ", ".join(sorted({shape.geom_type for shape in shapes}))
        raise VectorError(f"{name} must hold polygons, but its layer {chosen} holds {kinds}")
    crs = _read_crs(meta["crs"])
    if crs is None:
        raise VectorError(
            f"{name} must have a CRS to be laid over {raster.path}, but has none; "
            "assign it with ogr2ogr -a_srs"
        )
    return _Layer(polygons, crs, tuple(shapely.total_bounds(polygons).tolist()))


def _choose_layer(name: str, layer: str | None) -> str:
    """Return the layer that was named, else the first that may have polygons."""
    if not Path(name).exists() and not name.startswith("/vsi") and "://" not in name:
        raise VectorError(f"the area of interest {name} does not exist; check the path")
    try:
        layers = {str(title): str(kind) for title, kind in pyogrio.list_layers(name)}
    except DataSourceError as error:
        raise VectorError(
            f"{name} must be a vector file, but cannot be read as one ({error}); "
            "give a GeoPackage, GeoJSON, FlatGeobuf or Shapefile"
        ) from error
    if layer is not None:
        if layer not in layers:
            raise VectorError(f"{name} has no layer {layer}; it has {', '.join(layers)}")
        return layer
    for wanted in (("Polygon", "Surface"), ("Unknown", "Collection")):
        for title, kind in layers.items():
            if any(word in kind for word in wanted):
                return title
    held = ", ".join(f"{title} ({kind})" for title, kind in layers.items()) or "no layer"
    raise VectorError(f"{name} must hold polygons, but holds {held}")


def _read_crs(text: str | None) -> Any:
    """Return the rasterio CRS, None if there is none or it says nothing of the ground."""
    if not text:
        return None
    try:
        crs = CRS.from_user_input(text)
    except CRSError:
        return None
    return crs if crs.is_geographic or crs.is_projected else None


def _near(polygons: NDArray[Any], boxes: list[Box]) -> NDArray[Any]:
    """Return what of the polygons lies near the scene; far away, a projection may not hold."""
    if not boxes:
        return polygons
    found = [shapely.intersection(polygons, _frame(box)) for box in boxes]
    return _polygons_of(np.concatenate(found))


def _polygons_of(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return the single polygons that some geometries are made of, without lines and points."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return np.asarray(parts[(shapely.get_dimensions(parts) == 2) & ~shapely.is_empty(parts)])


def _frame(box: Box) -> Any:
    left, bottom, right, top = box
    x, y = MARGIN * (right - left), MARGIN * (top - bottom)
    return shapely.box(left - x, bottom - y, right + x, top + y)


def _spelt(boxes: list[Box]) -> str:
    sides = [
        f"{left:.8g}..{right:.8g} by {bottom:.8g}..{top:.8g}"
        for left, bottom, right, top in boxes
        if all(math.isfinite(side) for side in (left, bottom, right, top))
    ]
    return " and ".join(sides) or "what cannot be said in its CRS"
