"""Rasters in blocks: what is written is what was read, whatever the size and the type."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from cvmh.errors import OutputError
from cvmh.geo.georeference import Georeference
from cvmh.geo.raster import Raster
from cvmh.geo.tiled import BLOCK, write_tiled

PLACE = Georeference(crs=CRS.from_epsg(32632), transform=Affine(0.5, 0, 5e5, 0, -0.5, 54e5))
NOWHERE = Georeference(crs=None, transform=Affine.identity())


def reader(array):
    def read(window):
        rows = slice(window.row, window.row + window.height)
        return array[:, rows, window.column : window.column + window.width]

    return read


def write(path, array, *, georeference=PLACE, **options):
    shape, dtype = array.shape, array.dtype.name
    write_tiled(path, reader(array), shape=shape, dtype=dtype, georeference=georeference, **options)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (BLOCK, BLOCK), (300, 517), (600, 100)])
def test_what_is_written_is_what_was_read(tmp_path, dtype, height, width):
    array = np.random.default_rng(0).integers(0, 120, (3, height, width)).astype(dtype)
    with rasterio.open(write(tmp_path / "a.tif", array, nodata=7)) as dataset:
        np.testing.assert_array_equal(dataset.read(), array)
        assert dataset.block_shapes == [(BLOCK, BLOCK)] * 3
        assert (dataset.crs, dataset.transform) == (PLACE.crs, PLACE.transform)
        assert dataset.nodata == 7
    with Raster(tmp_path / "a.tif") as raster:
        assert raster.is_compressed


def test_bands_keep_their_names_and_only_a_true_alpha_is_tagged(tmp_path):
    array = np.ones((4, 9, 9), "uint8")
    names = ("red", "green", "blue", "nir")
    path = write(tmp_path / "a.tif", array, band_names=names, georeference=NOWHERE)
    with Raster(path) as raster:
        assert (raster.band_names, raster.tagged_alpha, raster.crs) == (names, None, None)
    with rasterio.open(write(tmp_path / "b.tif", array, alpha=4)) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(window):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tiled(tmp_path / "a.tif", fail, shape=(1, 9, 9), dtype="uint8", georeference=NOWHERE)
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "missing" / "a.tif", np.ones((1, 9, 9), "uint8"))
    assert not list(tmp_path.iterdir())


def test_a_raster_tells_whether_its_blocks_are_to_be_decoded(tmp_path):
    profile = {"driver": "GTiff", "count": 1, "height": 9, "width": 9, "dtype": "uint8"}
    for name, packed in (("plain", False), ("deflate", True)):
        options = {"compress": name} if packed else {}
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", **profile, **options, transform=PLACE.transform
        ) as dataset:
            dataset.write(np.ones((1, 9, 9), "uint8"))
        with Raster(tmp_path / f"{name}.tif") as raster:
            assert raster.is_compressed is packed
