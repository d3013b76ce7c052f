"""A window of a raster as a VRT."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint

from cvmh.errors import OutputError, RasterError
from cvmh.geo.raster import Raster, write_raster
from cvmh.geo.tiling import Window
from cvmh.geo.window_file import write_window

TURNED = Affine(0.4, 0.1, 500_000, 0.1, -0.4, 5_400_000)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("window") / "whole.tif"
    pixels = np.random.default_rng(0).integers(0, 60_000, (4, 70, 90)).astype(np.uint16)
    names = ("red", "green", "blue", "nir")
    write_raster(path, pixels, crs="EPSG:32632", transform=TURNED, nodata=7, band_names=names)
    return path, pixels


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_window_has_the_pixels_and_the_place_of_its_source(source, tmp_path, data):
    path, pixels = source
    row, column = data.draw(st.integers(0, 69)), data.draw(st.integers(0, 89))
    height, width = data.draw(st.integers(1, 70 - row)), data.draw(st.integers(1, 90 - column))
    part = tmp_path / "part.vrt"
    write_window(part, path, Window(row, column, height, width))
    with Raster(part) as raster:
        assert np.array_equal(raster.read(), pixels[:, row : row + height, column : column + width])
        assert (raster.nodata, raster.band_names) == ((7.0,) * 4, ("red", "green", "blue", "nir"))
        assert raster.crs.to_epsg() == 32632
        a, b, c, d, e, f, *_ = TURNED
        corner = (c + a * column + b * row, f + d * column + e * row)
        assert (raster.transform.c, raster.transform.f) == pytest.approx(corner, abs=1e-6)
        assert tuple(raster.transform)[:2] == pytest.approx((a, b))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.vrt"]


def test_masks_colours_and_control_points_are_kept(tmp_path):
    path, part = tmp_path / "whole.tif", tmp_path / "part.vrt"
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[10:30, 5:45] = 255
    points = [
        GroundControlPoint(r, c, 9 + c / 1e3, 48 - r / 1e3) for r, c in ((0, 0), (0, 49), (39, 0))
    ]
    profile = {"driver": "GTiff", "width": 50, "height": 40, "count": 1, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", gcps=points, crs="EPSG:4326", **profile) as dataset,
    ):
        dataset.write(np.arange(2000).reshape(1, 40, 50).astype(np.uint8))
        dataset.write_colormap(1, {3: (10, 20, 30, 255)})
        dataset.write_mask(mask)
    write_window(part, path, Window(8, 3, 20, 30))
    with rasterio.open(part) as dataset, Raster(part) as raster:
        assert dataset.colormap(1)[3] == (10, 20, 30, 255)
        assert np.array_equal(raster.read_mask(Window(0, 0, 20, 30)), mask[8:28, 3:33] != 0)
        assert [(point.row, point.col) for point in raster.gcps] == [(-8, -3), (-8, 46), (31, -3)]


def test_a_window_of_a_window_is_one_of_the_whole(source, tmp_path):
    path, pixels = source
    write_window(tmp_path / "a.vrt", path, Window(10, 20, 50, 60))
    write_window(tmp_path / "b.vrt", tmp_path / "a.vrt", Window(5, 6, 7, 8))
    with Raster(tmp_path / "b.vrt") as raster:
        assert np.array_equal(raster.read(), pixels[:, 15:22, 26:34])


def test_what_cannot_be_read_or_written_is_told(source, tmp_path):
    with pytest.raises(RasterError, match="does not exist"):
        write_window(tmp_path / "part.vrt", tmp_path / "nothing.tif", Window(0, 0, 1, 1))
    with pytest.raises(OutputError, match="cannot be written"):
        write_window(tmp_path / "no" / "part.vrt", source[0], Window(0, 0, 1, 1))
