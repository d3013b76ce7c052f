"""What a reader of the whole prediction found: each was wrong once, or might have been."""

import _thread
import json
import threading
import time

import numpy as np
import pytest
import rasterio
import torch

from cvmh import memory
from cvmh.errors import ConfigError, OutputError, RasterError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import plan_tiles
from cvmh.predict import plan_prediction, predict_raster
from cvmh.predict.identity import scene_identity
from cvmh.predict.infer import Engine, Worker


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


class OnceTooLarge(torch.nn.Module):
    """Sees each pixel alone; the device is full at its third pass."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 6, 1)
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)


def test_a_full_device_costs_no_finished_work(
    make_bundle, make_scene, noise, read_mask, tmp_path, monkeypatch
):
    monkeypatch.setattr("cvmh.predict.infer.PIXELS_IN_CACHE", 64 * 64)
    scene, mask = make_scene(noise(3, 512, 64)), tmp_path / "mask.tif"
    bundle = make_bundle(network=OnceTooLarge())
    with pytest.raises(ConfigError, match=r"too little memory .* use a smaller --batch"):
        predict_raster(scene, mask, bundle, overlap=0)
    assert predict_raster(scene, mask, bundle, overlap=0, batch=1).stripes_kept > 0
    whole = predict_raster(scene, tmp_path / "whole.tif", bundle, overlap=0)
    assert whole.stripes_kept == 0
    np.testing.assert_array_equal(read_mask(mask), read_mask(whole.output))


def test_the_workers_that_are_left_by_a_limit_are_those_that_are_told_of(make_bundle):
    bundle = make_bundle()
    plan = plan_tiles(512, 512, tile=64, overlap=0)
    engine = Engine(bundle, plan, batch=1, device="cpu", precision="fp32", cores=1)
    # As on a machine with two GPUs.
    engine._workers = [Worker(torch.device("cuda", n), bundle.network) for n in (0, 1)]
    engine.limit_workers(1)
    assert engine.devices == (torch.device("cuda", 0),)
    assert engine._idle.get_nowait().device == torch.device("cuda", 0)
    assert engine._idle.empty()


def test_files_in_memory_do_not_count_against_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    free = memory.available()
    for name, text in {
        "memory.max": "1000000\n",
        "memory.current": "990000\n",
        "memory.stat": "anon 300000\nfile 690000\ninactive_file 600000\nactive_file 90000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory.available() == 610_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > min(free, 1 << 30) / 2


def test_scenes_of_one_name_at_two_addresses_are_two_scenes(make_scene, noise, tmp_path):
    (tmp_path / "monday").mkdir()
    (tmp_path / "tuesday").mkdir()
    for day in ("monday", "tuesday"):
        make_scene(noise(1, 8, 8), name=f"{day}/scene.tif")
    identities = []
    for day in ("monday", "tuesday"):
        # GDAL's name for a file behind a layer of its own, as the addresses of a network are.
        with Raster(f"/vsisubfile/0,{tmp_path}/{day}/scene.tif") as far:
            with Raster(tmp_path / day / "scene.tif") as near:
                identities.append((scene_identity(far), scene_identity(near)))
    assert identities[0][0] != identities[1][0]
    assert identities[0][1] == identities[1][1]


def test_a_plan_counts_the_blocks_of_a_file_that_are_decoded_whole(make_bundle, make_scene, noise):
    array, planned = noise(3, 2048, 4096, dtype="uint16"), {}
    for rows in (1, 2048):
        scene = make_scene(array, name=f"{rows}.tif", blockysize=rows, compress="lzw")
        bundle = make_bundle(dtype="uint16")
        planned[rows] = plan_prediction(scene, scene.with_name("mask.tif"), bundle).memory
    # The rows that are kept and read at a time grow too.
    assert planned[2048] - planned[1] > 0.8 * array.nbytes


def test_no_output_takes_the_place_of_the_area_of_interest(
    make_bundle, make_scene, noise, tmp_path
):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
    scene, area = make_scene(noise(3, 64, 64), **place), tmp_path / "area.geojson"
    corners = [[500_100, 5_399_900], [500_400, 5_399_900], [500_400, 5_399_500]]
    polygon = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    before = area.read_bytes()
    with pytest.raises(OutputError, match=r"area.geojson would replace the --aoi"):
        predict_raster(
            scene, tmp_path / "m.tif", make_bundle(), aoi=area, vectors=area, overwrite=True
        )
    assert area.read_bytes() == before


def test_pixels_so_large_that_a_tile_shows_but_a_few_are_refused(
    make_bundle, make_scene, noise, tmp_path
):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(300, 0, 5e5, 0, -300, 5.4e6)}
    scene, mask = make_scene(noise(3, 64, 64), **place), tmp_path / "m.tif"
    with pytest.raises(RasterError, match=r"pixels of 300 m, .* fewer than 8 a side; use --no-res"):
        predict_raster(scene, mask, make_bundle(gsd=30.0))
    assert predict_raster(scene, mask, make_bundle(gsd=40.0)).plan["tile"] == 64


def test_tiny_tiles_do_not_come_by_the_thousand_in_a_pass(make_bundle):
    plan = plan_tiles(512, 512, tile=1, overlap=0)
    engine = Engine(make_bundle(), plan, batch=1, device="cpu", precision="fp32", cores=1)
    assert plan.num_tiles == 512**2 and engine.tiles_a_pass <= 128


def test_what_a_run_left_that_was_killed_over_its_polygons_is_cleared(
    make_bundle, make_scene, noise, tmp_path, monkeypatch
):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
    scene, mask, vectors = make_scene(noise(3, 64, 64), **place), tmp_path / "m.tif", "m.gpkg"

    class Killed(Exception):
        """Ends a process."""

    def kill(made, path):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cvmh.geo.vectors.writing.publish", kill)
        patch.setattr("cvmh.geo.vectors.targets.shutil.rmtree", lambda *given, **more: None)
        with pytest.raises(Killed):
            predict_raster(scene, mask, make_bundle(), vectors=tmp_path / vectors)
    assert [path.name for path in tmp_path.glob(".m.gpkg.*")]
    predict_raster(scene, mask, make_bundle(), vectors=tmp_path / vectors)
    assert not list(tmp_path.glob(".*")) and (tmp_path / vectors).is_file()
