"""What a prediction will take is told before it begins, and what does not fit is refused."""

import json
import re
import shutil

import numpy as np
import pytest
import rasterio

from cvmh.errors import ConfigError, OutputError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import plan_tiles
from cvmh.predict import plan_prediction, predict_raster
from cvmh.predict.blend import Planes
from cvmh.predict.plan import Network, memory_of

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
NETWORK = Network(
    tiles_a_pass=8, workers=2, bytes_a_pass=1 << 20, seconds_a_pass=1.0, resident=1 << 28
)


def needed(scene, height, width, cover=None, planes=None):
    with Raster(scene) as raster:
        plan = plan_tiles(height, width, tile=64, overlap=0.25)
        return memory_of(
            raster,
            (1, 2, 3),
            plan,
            network=NETWORK,
            num_classes=6,
            planes=planes or Planes(),
            cover=cover or width,
        )


def test_memory_grows_with_the_width_and_the_planes_but_not_with_the_height(make_scene, noise):
    scene = make_scene(noise(3, 300, 100))
    assert needed(scene, 10_000, 5000) == needed(scene, 10_000_000, 5000)
    assert needed(scene, 10_000, 5000) < needed(scene, 10_000, 20_000)
    assert needed(scene, 10_000, 20_000, cover=5000) < needed(scene, 10_000, 20_000)
    one = needed(scene, 10_000, 5000)
    two = needed(scene, 10_000, 5000, planes=Planes(confidence=True))
    three = needed(scene, 10_000, 5000, planes=Planes(confidence=True, scores="uint8"))
    four = needed(scene, 10_000, 5000, planes=Planes(confidence=True, scores="float16"))
    assert one < two < three < four


@pytest.fixture
def wide(tmp_path):
    """Return a scene of thirty thousand columns."""
    path = tmp_path / "wide.tif"
    profile = {"height": 300, "width": 30_000, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 256, "blockysize": 256, "photometric": "RGB", "compress": "deflate"}
    values = np.random.default_rng(0).integers(1, 9, (3, 300, 30_000), "uint8")
    with rasterio.open(path, "w", driver="GTiff", **profile, **UTM) as dataset:
        dataset.write(values)
    return path


def test_a_limit_splits_a_wide_scene_and_too_small_a_one_names_what_would_do(
    wide, make_bundle, tmp_path
):
    bundle, mask = make_bundle(tile=256), tmp_path / "m.tif"
    free = plan_prediction(wide, mask, bundle, max_memory=1 << 40)
    assert free.spans == 1
    with pytest.raises(ConfigError) as caught:
        plan_prediction(wide, mask, bundle, max_memory=1 << 20)
    message = str(caught.value)
    assert "wide.tif" in message and "1 MiB are allowed" in message and "\n" not in message
    # Another process measures itself anew: what is suggested leaves it room to differ.
    least = int(re.search(r"needs (\d+) MiB", message)[1]) << 20
    suggested = int(re.search(r"use --max-memory (\d+)M", message)[1]) << 20
    assert suggested > 1.1 * least
    assert plan_prediction(wide, mask, bundle, max_memory=suggested).memory <= suggested
    # Far from either, since what this process holds changes a little all the time.
    limit = (least + free.memory) // 2
    found = plan_prediction(wide, mask, bundle, max_memory=limit)
    assert found.spans > 1 and found.memory <= limit
    predict_raster(wide, mask, bundle, max_memory=limit)
    predict_raster(wide, tmp_path / "free.tif", bundle, max_memory=1 << 40)
    assert mask.read_bytes() == (tmp_path / "free.tif").read_bytes()


def test_the_plan_is_told_as_json_and_as_lines(make_scene, noise, make_bundle, tmp_path):
    array = noise(3, 200, 150)
    scene = make_scene(array, **UTM)
    plan = plan_prediction(scene, tmp_path / "m.tif", make_bundle(gsd=10.0), overlap=0)
    facts = json.loads(json.dumps(plan.to_json()))
    assert (facts["height"], facts["width"], facts["dtype"]) == (200, 150, "uint8")
    assert (facts["tiles"], facts["stripes"], facts["tiles_to_read"]) == (12, 4, 12)
    assert facts["gsd"] == pytest.approx(10, rel=1e-3) and facts["resampled_to"] is None
    assert facts["memory"] > 0 and facts["disk_free"] > facts["disk"] > 0
    text = "\n".join(plan.lines())
    for words in ("200 rows x 150 columns, 0.0 Mpx", "12 of 64 px, overlap 0, 4 stripes", "MiB"):
        assert words in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_a_scene_that_is_resampled_says_so(make_scene, noise, make_bundle, tmp_path):
    scene = make_scene(noise(3, 200, 150), **UTM)
    plan = plan_prediction(scene, tmp_path / "m.tif", make_bundle(gsd=30.0))
    assert plan.resampled_to == 30
    assert "shown to the network at 30 m" in "\n".join(plan.lines())


def test_a_disk_that_is_too_small_is_named_before_any_work(
    make_scene, noise, make_bundle, tmp_path, monkeypatch
):
    scene = make_scene(noise(3, 500, 500))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    for do in (plan_prediction, predict_raster):
        with pytest.raises(OutputError, match=r"m\.tif will need about .* of disk, but 0 MiB are"):
            do(scene, tmp_path / "m.tif", make_bundle())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_planning_refuses_what_predicting_would(make_scene, noise, make_bundle, tmp_path):
    scene = make_scene(noise(3, 50, 50))
    (tmp_path / "m.tif").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        plan_prediction(scene, tmp_path / "m.tif", make_bundle())
    assert plan_prediction(scene, tmp_path / "m.tif", make_bundle(), overwrite=True).tiles == 1
    with pytest.raises(OutputError, match="would replace its own scene"):
        plan_prediction(scene, scene, make_bundle(), overwrite=True)
    with pytest.raises(ConfigError, match="tile"):
        plan_prediction(scene, tmp_path / "n.tif", make_bundle(), tile=0)
