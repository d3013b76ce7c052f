"""What the tests of polygons share: masks from arrays, and polygons read back by pyogrio."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from shapely.geometry import shape

# Whole numbers, so that coordinates on the ground are exact.
TRANSFORM = Affine(2, 0, 500_000, 0, -2, 5_400_000)
UTM = {"crs": "EPSG:32632", "transform": TRANSFORM}


class Read(NamedTuple):
    """What a file of polygons holds."""

    polygons: Any
    columns: dict[str, Any]
    meta: dict[str, Any]


@pytest.fixture
def write_mask(tmp_path):
    """Return a function that writes an array as a mask and gives its path."""

    def write(array, name="mask.tif", **georeference):
        path = tmp_path / name
        height, width = array.shape
        profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "nodata": 255}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path, "w", dtype=array.dtype, **profile, **(georeference or UTM)
            ) as dataset:
                dataset.write(array, 1)
        return path

    return write


@pytest.fixture
def read():
    """Return a function that reads a file of polygons, in pixels if they lie on ``TRANSFORM``."""

    def read_file(path, *, in_pixels=False):
        meta, _, geometries, columns = pyogrio.raw.read(path, layer=path.stem)
        polygons = shapely.from_wkb(geometries)
        if in_pixels:
            polygons = shapely.transform(polygons, lambda xy: (xy - [500_000, 5_400_000]) / [2, -2])
        return Read(polygons, dict(zip(meta["fields"], columns, strict=True)), meta)

    return read_file


@pytest.fixture
def trace_with_gdal():
    """Return a function that gives (class id, polygon) of each region of an array, by GDAL."""

    def trace(array):
        found = rasterio.features.shapes(array, mask=array != 255, connectivity=4)
        return [(int(value), shape(outline)) for outline, value in found]

    return trace


@pytest.fixture
def draw_blobs():
    """Return a function that draws a mask of random blobs, of classes 0..5 and 255."""

    def draw(seed, height, width, *, blob=1, num_classes=6, share_nodata=0.2):
        rng = np.random.default_rng(seed)
        shape = -(-height // blob), -(-width // blob)
        small = rng.integers(0, num_classes, shape).astype(np.uint8)
        small[rng.random(shape) < share_nodata] = 255
        return small.repeat(blob, axis=0).repeat(blob, axis=1)[:height, :width].copy()

    return draw
