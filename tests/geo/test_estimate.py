import warnings

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning

from cvmh.geo import estimate
from cvmh.geo.area import Area
from cvmh.geo.coverage import Coverage, find_coverage
from cvmh.geo.estimate import estimate_data
from cvmh.geo.raster import Raster
from cvmh.geo.validity import Validity, find_alpha

HEIGHT, WIDTH = 1300, 2100


def disc():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 600) ** 2 + (x - 900) ** 2 < 450**2


def estimated(path, bands=(1,), **options):
    with Raster(path) as raster:
        rule = Validity(raster, bands, alpha=find_alpha(raster, bands), **options)
        data = estimate_data(raster, bands, rule)
        return None if data is None else data.mean()


def test_nodata_alpha_and_masks_are_estimated_to_within_a_percent(make_raster):
    is_data = disc()
    pixels = np.where(is_data, 9, 0).astype("uint8")[None]
    share = is_data.mean()
    assert estimated(make_raster("a.tif", pixels, nodata=0)) == pytest.approx(share, abs=0.01)
    assert estimated(make_raster("b.tif", pixels)) == 1
    alpha = np.concatenate([pixels, is_data[None] * np.uint8(255)])
    colours = [ColorInterp.gray, ColorInterp.alpha]
    path = make_raster("c.tif", alpha, colours=colours)
    assert estimated(path) == pytest.approx(share, abs=0.01)
    path = make_raster("d.tif", pixels, mask=is_data * np.uint8(255))
    assert estimated(path) == pytest.approx(share, abs=0.01)
    values = np.where(is_data, 1, np.nan).astype("float32")[None]
    assert estimated(make_raster("e.tif", values)) == pytest.approx(share, abs=0.01)


def test_the_area_counts_and_narrow_scenes_are_fine(make_raster):
    area = Area([shapely.box(0, 0, WIDTH / 2, HEIGHT)], HEIGHT, WIDTH)
    path = make_raster("a.tif", np.ones((1, HEIGHT, WIDTH), "uint8"))
    assert estimated(path, area=area) == pytest.approx(0.5, abs=0.01)
    assert estimated(make_raster("b.tif", np.ones((1, 1, 3000), "uint8"))) == 1


def test_a_large_file_is_not_read_unless_it_has_overviews(make_raster, monkeypatch):
    monkeypatch.setattr(estimate, "MAX_PIXELS", 1_000_000)
    is_data = disc()
    pixels = np.where(is_data, 9, 0).astype("uint8")[None]
    path = make_raster("a.tif", pixels, nodata=0)
    assert estimated(path) is None
    half = Coverage(HEIGHT, WIDTH, np.array([[0, HEIGHT, 0, 1024]]))
    assert estimated(path, coverage=half) == pytest.approx(1024 / WIDTH, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, "r+")
    with dataset:
        dataset.build_overviews([2], Resampling.nearest)
    assert estimated(path) == pytest.approx(is_data.mean(), abs=0.01)


def test_a_damaged_file_has_no_estimate_and_no_error(make_raster):
    noise = np.random.default_rng(0).integers(1, 99, (1, 300, 300), "uint8")
    path = make_raster("a.tif", noise, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[:30_000])
    with Raster(path) as raster:
        assert estimate_data(raster, [1], Validity(raster, [1], alpha=None)) is None
        assert find_coverage(raster, [1]) is None
