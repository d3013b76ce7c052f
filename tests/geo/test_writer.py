import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from cvmh.geo import cog as cog_module
from cvmh.geo.intact import read_directories
from cvmh.geo.raster import Raster
from cvmh.geo.writer import GridWriter

GRID = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
NAMES = ["water", "forest & field", "Straße"]


@pytest.fixture
def make_scene(tmp_path):
    """Return a function that makes a scene without a stored pixel and gives its path."""

    def make(height, width):
        path = tmp_path / "scene.tif"
        size = {"height": height, "width": width, "count": 1, "dtype": "uint8"}
        layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "YES"}
        with rasterio.open(path, "w", driver="GTiff", sparse_ok=True, **size, **layout, **GRID):
            return path

    return make


def write(path, scene, rows, *, step=100, **options):
    with (
        Raster(scene) as raster,
        GridWriter(path, raster, **{"nodata": 255, **options}) as writer,
    ):
        for row in range(0, rows.shape[-2], step):
            writer.write_rows(rows[..., row : row + step, :])


def smooth_scores(height, width):
    row, column = np.mgrid[:height, :width]
    waves = [np.sin(row / 90) + np.cos(column / 70 + k) for k in range(len(NAMES))]
    return np.exp(waves) / np.exp(waves).sum(axis=0)


def test_scores_are_bytes_with_a_scale_and_a_name_for_each_band(make_scene, tmp_path):
    scores = np.rint(254 * smooth_scores(700, 600)).astype("uint8")
    scores[:, :33, :500] = 255
    scene = make_scene(700, 600)
    write(tmp_path / "scores.tif", scene, scores, band_names=NAMES, scale=1 / 254)
    with rasterio.open(tmp_path / "scores.tif") as found:
        np.testing.assert_array_equal(found.read(), scores)
        assert found.descriptions == tuple(NAMES)
        assert found.scales == (1 / 254,) * 3
        assert found.nodatavals == (255,) * 3
        assert found.crs == GRID["crs"] and found.transform == GRID["transform"]
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        # Three bands of bytes are no picture.
        assert ColorInterp.red not in found.colorinterp


def test_overviews_of_scores_are_means_of_what_is_data(make_scene, tmp_path):
    scores = np.rint(254 * smooth_scores(640, 600)).astype("uint8")
    is_gap = np.random.default_rng(0).random((640, 600)) < 0.6
    scores[:, is_gap] = 255
    write(tmp_path / "scores.tif", make_scene(640, 600), scores, band_names=NAMES)
    with rasterio.open(tmp_path / "scores.tif", overview_level=0) as overview:
        found = overview.read()
    known = np.where(is_gap, np.nan, scores).reshape(3, 320, 2, 300, 2)
    is_empty = np.isnan(known).all(axis=(2, 4))
    mean = np.nansum(known, axis=(2, 4)) / np.maximum((~np.isnan(known)).sum(axis=(2, 4)), 1)
    np.testing.assert_array_equal(found == 255, is_empty)
    assert np.abs(found - mean)[~is_empty].max() <= 0.5


def test_scores_of_sixteen_bits_keep_every_half_precise_value(make_scene, tmp_path):
    scores = smooth_scores(640, 600).astype("float16")
    scores[:, 100:300] = np.nan
    options = {"band_names": NAMES, "dtype": "float16", "nodata": float("nan")}
    write(tmp_path / "scores.tif", make_scene(640, 600), scores, **options)
    with rasterio.open(tmp_path / "scores.tif") as found:
        np.testing.assert_array_equal(found.read(), scores.astype("float32"))
        assert np.isnan(found.nodata)
    with rasterio.open(tmp_path / "scores.tif", overview_level=0) as overview:
        assert np.isnan(overview.read(1)[51:149]).all()
        assert not np.isnan(overview.read(1)[151:]).any()
    write(tmp_path / "again.tif", make_scene(640, 600), scores, **options)
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "scores.tif").read_bytes()


@pytest.mark.parametrize("first", [0, 1, 127, 128, 129, 300, 640])
def test_skipped_rows_are_rows_of_nodata(make_scene, tmp_path, first):
    rows = np.random.default_rng(0).integers(0, 9, (900, 700), dtype="uint8")
    rows[first : first + 260] = 255
    scene = make_scene(900, 700)
    write(tmp_path / "written.tif", scene, rows, band_names=["one"])
    with (
        Raster(scene) as raster,
        GridWriter(tmp_path / "skipped.tif", raster, band_names=["one"], nodata=255) as writer,
    ):
        writer.write_rows(rows[:first])
        writer.skip_rows(100)
        writer.skip_rows(160)
        writer.write_rows(rows[first + 260 :])
    with rasterio.open(tmp_path / "skipped.tif") as found:
        np.testing.assert_array_equal(found.read(1), rows)
    assert (tmp_path / "skipped.tif").read_bytes() == (tmp_path / "written.tif").read_bytes()


def test_blocks_without_data_take_no_room(make_scene, tmp_path):
    side, places = 30_000, [(512, 1024), (16_384, 29_696), (29_696, 0)]
    scene = make_scene(side, side)
    stripe = np.full((512, side), 255, "uint8")
    with (
        Raster(scene) as raster,
        GridWriter(tmp_path / "one.tif", raster, band_names=["one"], nodata=255) as writer,
    ):
        done = 0
        for number, (row, column) in enumerate(places):
            writer.skip_rows(row - done)
            rows = stripe[: min(512, side - row)].copy()
            rows[:, column : column + 512] = number
            writer.write_rows(rows)
            done = row + len(rows)
        writer.skip_rows(side - done)
    assert (tmp_path / "one.tif").stat().st_size < 1 << 18
    first, *overviews = read_directories(tmp_path / "one.tif")
    stored = {(int(row) * 512, int(column) * 512) for _, row, column in np.argwhere(first.offsets)}
    assert stored == set(places)
    assert [np.count_nonzero(overview.offsets) for overview in overviews] == [3, 3, 3, 3, 3, 1]
    with rasterio.open(tmp_path / "one.tif") as found:
        for number, (row, column) in enumerate(places):
            window = rasterio.windows.Window(max(column - 8, 0), row - 8, 30, 30)
            read = found.read(1, window=window)
            expected = np.full(read.shape, 255)
            expected[8:, min(column, 8) :] = number
            np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("count", [1, 3])
def test_gdals_own_check_finds_the_layout_right(
    make_scene, in_qgis, tmp_path, count, dtype, is_sparse
):
    scores = smooth_scores(1500, 1300)[:count]
    scores = (scores if dtype == "float16" else np.rint(254 * scores)).astype(dtype)
    nodata = np.nan if dtype == "float16" else 255
    scores[:, 200:1400, 300 : (1300 if is_sparse else 400)] = nodata
    options = {"band_names": NAMES[:count], "dtype": dtype, "nodata": nodata}
    write(tmp_path / "scores.tif", make_scene(1500, 1300), scores, **options)
    module = "osgeo_utils.samples.validate_cloud_optimized_geotiff"
    run = in_qgis("/usr/bin/python3", "-m", module, "--full-check=yes", tmp_path / "scores.tif")
    assert "is a valid cloud optimized GeoTIFF" in run.stdout, run.stdout + run.stderr


def test_the_bytes_do_not_depend_on_the_number_of_threads(make_scene, tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 9, (1400, 1300), dtype="uint8")
    scene = make_scene(1400, 1300)
    made = set()
    for threads in (1, 2, 4, 4):
        monkeypatch.setattr(cog_module, "_num_threads", lambda threads=threads: threads)
        write(tmp_path / "one.tif", scene, rows, band_names=["one"], overwrite=True)
        made.add((tmp_path / "one.tif").read_bytes())
    assert len(made) == 1


def test_a_given_folder_is_used_cleared_of_remains_and_left_empty(make_scene, tmp_path):
    rows = np.random.default_rng(0).integers(0, 9, (700, 600), dtype="uint8")
    scene, folder = make_scene(700, 600), tmp_path / "work"
    folder.mkdir()
    (folder / "one.tif.part").mkdir()
    (folder / "one.tif.part" / "rows.tif").write_text("cut off")
    with Raster(scene) as raster, pytest.raises(KeyboardInterrupt):
        with GridWriter(
            tmp_path / "one.tif", raster, band_names=["one"], nodata=255, folder=folder
        ) as writer:
            writer.write_rows(rows[:300])
            assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "work"}
            assert any(folder.rglob("rows.tif"))
            raise KeyboardInterrupt
    assert not list(folder.iterdir())
    write(tmp_path / "one.tif", scene, rows, band_names=["one"], folder=folder)
    assert not list(folder.iterdir())
    with rasterio.open(tmp_path / "one.tif") as found:
        np.testing.assert_array_equal(found.read(1), rows)


MEMORY = """
import sys
import numpy as np
from cvmh.geo.raster import Raster
from cvmh.geo.writer import GridWriter
from cvmh.memory import peak_resident, resident

scene, target, height = sys.argv[1], sys.argv[2], int(sys.argv[3])
squares = np.random.default_rng(0).integers(0, 6, (64, 250), dtype="uint8")
rows = squares.repeat(16, 0).repeat(32, 1)
before = resident()
with Raster(scene) as raster:
    with GridWriter(target, raster, band_names=["one"], nodata=255, overviews="nearest") as writer:
        for row in range(0, height, 1024):
            writer.write_rows(rows[: height - row])
print(peak_resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_height(make_scene, tmp_path):
    peaks = []
    for height in (8_000, 40_000):
        command = [sys.executable, "-c", MEMORY, make_scene(height, 8000), tmp_path / "one.tif"]
        run = subprocess.run([*map(str, command), str(height)], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        (tmp_path / "one.tif").unlink()
        peaks.append(int(run.stdout) / 2**20)
    assert peaks[0] < 100
    assert peaks[1] < peaks[0] + 20
