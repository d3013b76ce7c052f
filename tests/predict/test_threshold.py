"""--prune auto: how much each tile keeps is found on a sample, and what it changes is told."""

import json
import logging

import numpy as np
import pytest
import rasterio
import torch

from cvmh import create_model
from cvmh.classes import ISPRS
from cvmh.errors import BundleError, ConfigError, OutputError
from cvmh.predict import plan_prediction, predict_raster, threshold
from cvmh.predict.infer import Engine
from cvmh.predict.pruning import CHOSEN_DENSE_ABOVE

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
TINY = {"widths": (8, 8, 16, 16), "encoder_depths": (1, 1, 1, 1), "decoder_depths": (1, 1, 1, 1)}
# Four tiles a side without overlap, so that every tile is one of the sample.
OPTIONS = {"tile": 96, "overlap": 0.0}


@pytest.fixture
def bundle(make_bundle):
    """Return a bundle whose network chooses cells, always with the same weights."""
    torch.manual_seed(0)
    network = create_model(
        "cvmh_unet_nano", bands=3, num_classes=len(ISPRS), **TINY, pruning={"reinsert": "null"}
    )
    return make_bundle(network=network.eval(), tile=96)


@pytest.fixture
def scene(make_scene, noise):
    """Return a scene of rough and smooth fields, with a corner without data."""
    array = noise(3, 384, 384)
    array[:, 100:300, 50:250] = 130
    array[:, :80, :130] = 0
    return make_scene(array, nodata=0, **UTM)


@pytest.fixture
def small_scenes_pay(monkeypatch):
    monkeypatch.setattr(threshold, "TILES_FOR_ONE", 0)


def read(path):
    with rasterio.open(path) as mask:
        return mask.read(1)


def test_the_change_that_is_told_is_that_of_the_mask_against_the_dense_one(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    dense, auto = tmp_path / "dense.tif", tmp_path / "auto.tif"
    predict_raster(scene, dense, bundle, prune="off", **OPTIONS)
    report = predict_raster(scene, auto, bundle, prune="auto", **OPTIONS)
    sample, before, after = report.pruning.sample, read(dense), read(auto)
    has_data = before != 255
    assert np.array_equal(has_data, after != 255)
    assert sample.tiles == report.tiles_run == 16
    assert sample.changed_share == pytest.approx(np.mean(before[has_data] != after[has_data]))
    assert 0 < sample.changed_share < 1
    # Everything is allowed, so that it is the first candidate.
    assert sample.kept_share == pytest.approx(report.pruning.mean_kept_share)
    assert abs(sample.kept_share - threshold.CANDIDATES[0]) < 0.15
    assert report.pruning.tiles_pruned + report.pruning.tiles_dense == 16
    assert sum(report.pruning.tiles_by_cells.values()) == report.pruning.tiles_pruned > 0


def test_tiles_keep_different_shares_of_their_cells(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    assert len(report.pruning.tiles_by_cells) > 1


def test_where_no_share_changes_little_enough_only_cells_without_data_are_left_out(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch, caplog
):
    monkeypatch.setattr(threshold, "ALLOWED", -1.0)
    caplog.set_level(logging.INFO, logger="cvmh")
    one, other = tmp_path / "auto.tif", tmp_path / "nodata.tif"
    report = predict_raster(scene, one, bundle, prune="auto", **OPTIONS)
    predict_raster(scene, other, bundle, prune="nodata", **OPTIONS)
    sample = report.pruning.sample
    assert (report.pruning.asked, report.pruning.prune) == ("auto", "nodata")
    # The last that was tried: of the most cells.
    assert abs(sample.kept_share - threshold.CANDIDATES[-1]) < 0.15 and not sample.is_allowed
    assert sample.changed_share > sample.allowed_share
    # What the search took is told as lost.
    assert sample.seconds > 0 and report.pruning.estimated_seconds_saved is not None
    assert one.read_bytes() == other.read_bytes()
    assert "prune: nodata, since with" in caplog.text


def test_a_sample_is_not_taken_where_it_does_not_pay(bundle, scene, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(threshold, "_predicted", None)
    caplog.set_level(logging.INFO, logger="cvmh")
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    assert report.pruning.prune == "nodata"
    assert "a sample of 16 tiles does not pay for 16 tiles" in caplog.text


def test_the_smallest_share_is_taken_that_changes_little_enough(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    candidates, changes = (0.3, 0.5, 0.7), {}
    for share in candidates:
        with monkeypatch.context() as patch:
            patch.setattr(threshold, "CANDIDATES", (share,))
            patch.setattr(threshold, "ALLOWED", 1.0)
            report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
            changes[share] = report.pruning.sample.changed_share
            (tmp_path / "m.tif").unlink()
    allowed = sorted(changes.values())[1]
    monkeypatch.setattr(threshold, "CANDIDATES", candidates)
    monkeypatch.setattr(threshold, "ALLOWED", allowed)
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    if changes[0.5] <= allowed:
        wanted = 0.3 if changes[0.3] <= allowed else 0.5
    else:
        wanted = 0.7
    assert report.pruning.sample.changed_share == changes[wanted] <= allowed
    assert report.pruning.sample.allowed_share == allowed


def test_the_seconds_of_a_sample_are_those_of_all_that_was_tried(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(threshold.time, "perf_counter", lambda: now[0])
    tried, predicted = [], threshold._predicted

    def slow(engine, tiles):
        now[0] += 1
        found = predicted(engine, tiles)
        # The second smallest share of three is the first that is tried, and the only good one.
        tried.append(engine.pruning.keep)
        bad = {window: ids + 1 for window, ids in found[0].items()}
        return (bad, found[1]) if len(tried) > 2 else found

    monkeypatch.setattr(threshold, "CANDIDATES", (0.3, 0.5, 0.7))
    monkeypatch.setattr(threshold, "ALLOWED", 0.99)
    monkeypatch.setattr(threshold, "_predicted", slow)
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    assert report.pruning.prune == f"auto, from score {tried[1].score:g}"
    assert len(tried) == 3 and report.pruning.sample.seconds == 3


def test_a_sample_runs_no_more_passes_at_a_time_than_memory_bears(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    engines, predicted = [], threshold._predicted
    monkeypatch.setattr(threshold, "_predicted", lambda e, t: engines.append(e) or predicted(e, t))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        limit = Engine.limit_workers
        monkeypatch.setattr(Engine, "limit_workers", lambda self, most: limit(self, min(most, 2)))
        predict_raster(
            scene, tmp_path / "m.tif", bundle, prune="auto", max_memory=8 << 30, **OPTIONS
        )
    finally:
        torch.set_num_threads(before)
    assert len(engines) > 1 and all(engine.num_workers == 2 for engine in engines)


def test_too_little_memory_is_refused_before_a_sample_is_looked_at(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    monkeypatch.setattr(threshold, "_predicted", None)
    with pytest.raises(ConfigError, match="of memory at least"):
        predict_raster(
            scene, tmp_path / "m.tif", bundle, prune="auto", max_memory=1 << 20, **OPTIONS
        )


def test_a_sample_takes_no_longer_than_its_own_tiles(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    engines, predicted = [], threshold._predicted
    monkeypatch.setattr(threshold, "_predicted", lambda e, t: engines.append(e) or predicted(e, t))
    predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    dense, *pruned = (engine.spent for engine in engines)
    assert dense.dense_places == 16 and pruned[0].pruned_tiles == 16
    assert all(engine.tiles_a_pass == 1 for engine in engines)


def test_what_will_be_left_out_is_estimated_with_cells_without_data_counted_once(
    bundle, make_scene, noise, tmp_path, small_scenes_pay, monkeypatch
):
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    array = noise(3, 384, 384)
    # Two thirds of the cells of each tile.
    array.reshape(3, 384, 4, 96)[..., :64] = 0
    scene = make_scene(array, nodata=0, **UTM)
    plan = plan_prediction(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    assert report.pruning.sample.data_share == pytest.approx(1 / 3)
    assert report.pruning.mean_kept_share < 1 / 3
    assert plan.share_kept == pytest.approx(report.pruning.mean_kept_share)


def test_a_second_run_and_its_files_say_what_was_chosen(
    bundle, scene, tmp_path, small_scenes_pay, monkeypatch
):
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    mask, told = tmp_path / "m.tif", tmp_path / "report.json"
    options = {"prune": "auto", "report": told, **OPTIONS}
    report = predict_raster(scene, mask, bundle, **options)
    written = json.loads(told.read_text())["pruning"]
    assert written["sample"]["changed_share"] == report.pruning.sample.changed_share
    with rasterio.open(mask) as raster:
        assert raster.tags()["CVMH_PRUNE"] == written["prune"] == report.pruning.prune
    assert predict_raster(scene, mask, bundle, resume=True, **options).was_done
    # Refused before it looks at a sample.
    monkeypatch.setattr(threshold, "_predicted", None)
    with pytest.raises(OutputError, match=r"m\.tif exists; choose another name"):
        predict_raster(scene, mask, bundle, **options)


def test_it_is_refused_where_the_network_was_not_trained_to(make_bundle, scene, tmp_path):
    network = create_model("cvmh_unet_nano", bands=3, num_classes=len(ISPRS), **TINY)
    with pytest.raises(BundleError, match="must be trained to prune for --prune auto"):
        predict_raster(scene, tmp_path / "m.tif", make_bundle(network=network), prune="auto")


def test_a_large_share_runs_dense_because_that_is_quicker(bundle, scene, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="cvmh")
    share = CHOSEN_DENSE_ABOVE + 0.05
    report = predict_raster(scene, tmp_path / "share.tif", bundle, prune=share, **OPTIONS)
    predict_raster(scene, tmp_path / "nodata.tif", bundle, prune="nodata", **OPTIONS)
    assert report.pruning.prune == "nodata" and "takes less time dense" in caplog.text
    assert (tmp_path / "share.tif").read_bytes() == (tmp_path / "nodata.tif").read_bytes()


def test_the_line_of_text_tells_the_change(bundle, scene, tmp_path, small_scenes_pay, monkeypatch):
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    plan = plan_prediction(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    (line,) = [line for line in plan.lines() if line.startswith("prune")]
    assert "of the pixels of a sample of 16 tiles change" in line
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune="auto", **OPTIONS)
    assert plan.prune == report.pruning.prune and plan.prune.startswith("auto, from score")
