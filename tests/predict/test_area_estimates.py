"""Areas in the report of a prediction, where the bundle carries a sample of its validation."""

import json

import numpy as np
import pytest
import torch
from affine import Affine

from cvmh import create_model
from cvmh.classes import ISPRS
from cvmh.metrics.area_sample import AreaSample
from cvmh.predict import predict_raster, threshold

PLACE = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
CLUSTERS = 24
TINY = {"widths": (8, 8, 16, 16), "encoder_depths": (1, 1, 1, 1), "decoder_depths": (1, 1, 1, 1)}


@pytest.fixture
def scene(make_scene, noise):
    return make_scene(noise(3, 128, 128), **PLACE)


@pytest.fixture
def confused():
    """Return for each mapped class (rows) the shares of the true ones: nine in ten are right."""
    return np.eye(6) * 0.88 + 0.02


def sample_of(shares, mapped, rng):
    """Return a sample of clusters that are mapped in some mix, and confused as the shares say."""
    counts = np.zeros((CLUSTERS, 6, 6), dtype=np.int64)
    for cluster in range(CLUSTERS):
        drawn = rng.multinomial(2000, mapped / mapped.sum())
        for number, pixels in enumerate(drawn.tolist()):
            counts[cluster, :, number] = rng.multinomial(pixels, shares[number])
    return AreaSample.of(counts, split="val", kind="places")


def test_the_report_tells_mapped_and_estimated_areas_with_errors(
    scene, make_bundle, tmp_path, confused
):
    plain = predict_raster(scene, tmp_path / "plain.tif", make_bundle())
    mapped = np.array(plain.class_areas)
    sample = sample_of(confused, mapped, np.random.default_rng(0))
    path = tmp_path / "r.json"
    report = predict_raster(scene, tmp_path / "m.tif", make_bundle(area_sample=sample), report=path)
    found = json.loads(path.read_text())["area_estimates"]
    truth = mapped @ confused
    for number, name in enumerate(ISPRS.names):
        row = found["classes"][name]
        assert row["mapped"] == report.class_areas[number] == mapped[number]
        # Four standard errors: the sample is drawn once, not 600 times as in the simulations.
        assert abs(row["area"]["estimate"] - truth[number]) < 4 * row["area"]["error"]
        assert row["area"]["low"] < row["area"]["estimate"] < row["area"]["high"]
        if mapped[number] > 0.05 * mapped.sum():
            assert row["users_accuracy"]["estimate"] == pytest.approx(0.9, abs=0.03)
    total = sum(row["area"]["estimate"] for row in found["classes"].values())
    assert total == pytest.approx(128 * 128 * 100, rel=1e-9)
    assert found["clusters"] == CLUSTERS
    assert found["notes"] == [
        "the estimates rest on split 'val' of the training data, 24 places; they hold only if the "
        "network confuses classes in this scene as it does there"
    ]


@pytest.mark.parametrize(
    ("prune", "said"),
    [("off", None), ("nodata", None), (0.5, "0.5"), ("auto", "auto, from score ")],
)
def test_the_confusion_is_said_to_be_of_the_dense_network_where_cells_are_left_out_by_choice(
    scene, make_bundle, tmp_path, confused, monkeypatch, prune, said
):
    # Every scene pays, and may change.
    monkeypatch.setattr(threshold, "TILES_FOR_ONE", 0)
    monkeypatch.setattr(threshold, "ALLOWED", 1.0)
    sample = sample_of(confused, np.ones(6), np.random.default_rng(0))
    torch.manual_seed(0)
    network = create_model("cvmh_unet_nano", bands=3, num_classes=6, **TINY, pruning={})
    bundle = make_bundle(network=network, area_sample=sample)
    report = predict_raster(scene, tmp_path / "m.tif", bundle, prune=prune)
    notes = [note for note in report.area_estimates.notes if "dense network" in note]
    assert len(notes) == (said is not None)
    assert all(note.startswith(f"cells were left out by choice (--prune {said}") for note in notes)


def test_without_a_sample_or_without_ground_there_is_no_estimate(
    scene, make_scene, noise, make_bundle, tmp_path, confused
):
    assert predict_raster(scene, tmp_path / "a.tif", make_bundle()).area_estimates is None
    nowhere = make_scene(noise(3, 64, 64), "nowhere.tif")
    sample = sample_of(confused, np.ones(6), np.random.default_rng(0))
    report = predict_raster(nowhere, tmp_path / "b.tif", make_bundle(area_sample=sample))
    assert report.area_estimates is None and report.class_areas is None


def test_a_sample_that_lacks_a_class_of_the_scene_gives_notes_and_no_numbers(
    scene, make_bundle, tmp_path
):
    one = np.zeros((CLUSTERS, 6, 6), dtype=int)
    one[:, 0, 0] = 100
    bundle = make_bundle(area_sample=AreaSample.of(one, split="val"))
    found = predict_raster(scene, tmp_path / "m.tif", bundle).area_estimates
    assert all(row.area.estimate is None for row in found.classes.values())
    assert any("so no area can be estimated" in note for note in found.notes)


def test_the_mask_does_not_depend_on_the_sample(scene, make_bundle, tmp_path, confused):
    sample = sample_of(confused, np.ones(6), np.random.default_rng(1))
    masks = [tmp_path / "plain" / "m.tif", tmp_path / "sampled" / "m.tif"]
    for mask, card in zip(masks, ({}, {"area_sample": sample}), strict=True):
        mask.parent.mkdir()
        predict_raster(scene, mask, make_bundle(**card))
    import rasterio

    with rasterio.open(masks[0]) as one, rasterio.open(masks[1]) as other:
        assert np.array_equal(one.read(), other.read())
