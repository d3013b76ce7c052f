"""What a reader of the whole prediction found: each was wrong once, or might have been."""

import _thread
import threading
import time

import numpy as np
import pytest

from cvmh.errors import ConfigError
from cvmh.geo.raster import Raster
from cvmh.predict import predict_raster


def test_a_stop_is_heard_while_nothing_but_empty_pixels_are_read(
    make_bundle, make_scene, noise, tmp_path, monkeypatch
):
    array = noise(3, 4096, 64)
    array[:, 64:] = 0
    scene = make_scene(array, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    direct, rows = Raster.read, []

    def slow(self, window=None, bands=None):
        rows.append(window.row)
        if len(rows) == 6:
            # As Ctrl-C, which is heard by the main thread.
            _thread.interrupt_main()
        time.sleep(0.05)
        return direct(self, window, bands)

    monkeypatch.setattr(Raster, "read", slow)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle())
    assert max(rows) < 2048
    assert not [thread for thread in threading.enumerate() if thread.name == "cvmh-read"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("option", ["min_area", "simplify"])
def test_numbers_that_polygons_cannot_be_made_with_are_refused_before_the_work(
    make_bundle, make_scene, noise, tmp_path, option, value
):
    scene = make_scene(noise(3, 64, 64))
    vectors = {"vectors": tmp_path / "polygons.gpkg", option: value}
    with pytest.raises(ConfigError, match=f"must be numbers from 0 up, got .*{value:g}"):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle(), **vectors)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif"}
