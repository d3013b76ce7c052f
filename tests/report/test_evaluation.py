import json

import numpy as np
import pytest
import rasterio

from cvmh.config import DataSettings
from cvmh.datasets import open_data
from cvmh.errors import ConfigError, DataError
from cvmh.geo.raster import Raster, write_raster
from cvmh.metrics import count_boundaries, score_boundaries
from cvmh.models.bundle import load_bundle
from cvmh.predict import predict_raster
from cvmh.report.evaluation import evaluate

SPLITS = ("train", "val", "test", "test")


@pytest.fixture(scope="module")
def bundle(finished_run):
    return load_bundle(finished_run / "best.safetensors")


@pytest.fixture
def open_root():
    return lambda root: open_data(DataSettings(root=root))


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def confusion_by_hand(bundle, root, stems, folder):
    """Predict whole scenes and count label and mask pairs, one pair of classes at a time."""
    counts = np.zeros((3, 3), dtype=int)
    for stem in stems:
        predict_raster(root / "images" / f"{stem}.tif", folder / f"{stem}.tif", bundle)
        mask, label = read(folder / f"{stem}.tif"), read(root / "masks" / f"{stem}.tif")
        for truth in range(3):
            for guess in range(3):
                counts[truth, guess] += ((label == truth) & (mask == guess)).sum()
    return counts


def test_the_scores_of_a_split_are_those_counted_by_hand_from_its_masks(
    bundle, make_data, open_root, tmp_path
):
    root = make_data(splits=SPLITS, size=70)
    # The network knows these images too well to make mistakes: let a part of a label be wrong.
    with Raster(root / "masks" / "s3.tif") as raster:
        ids, place = raster.read(), {"crs": raster.crs, "transform": raster.transform}
    ids[0, 20:40, :30] = 1
    write_raster(root / "masks" / "s3.tif", ids, nodata=None, **place)
    counts = confusion_by_hand(bundle, root, ("s2", "s3"), tmp_path)
    (scores,) = evaluate(bundle, open_root(root)).scores
    hits = np.diag(counts)
    iou = hits / (counts.sum(axis=0) + counts.sum(axis=1) - hits)
    f1 = 2 * hits / (counts.sum(axis=0) + counts.sum(axis=1))
    assert scores.confusion == counts.tolist()
    # The first four rows of each label are 255.
    assert counts.sum() == 2 * 66 * 70
    assert [row.iou for row in scores.classes.values()] == pytest.approx(iou)
    assert scores.miou == pytest.approx(iou.mean())
    assert scores.mf1 == pytest.approx(f1.mean())
    assert scores.oa == pytest.approx(hits.sum() / counts.sum())
    assert (scores.protocol, scores.split) == ("full", "test")
    assert 0.5 < scores.miou < 1


def test_labelled_pixels_without_data_do_not_count(bundle, make_data, open_root):
    root = make_data(splits=("train", "val", "test"))
    with Raster(root / "images" / "s2.tif") as raster:
        image, place = raster.read(), {"crs": raster.crs, "transform": raster.transform}
    image[:, 32:] = 0
    write_raster(
        root / "images" / "s2.tif", image, nodata=0, band_names=("red", "green", "blue"), **place
    )
    (scores,) = evaluate(bundle, open_root(root)).scores
    assert np.sum(scores.confusion) == 28 * 64


def test_an_observer_sees_every_row_of_every_scene_once_and_how_sure_the_network_was(
    bundle, make_data, open_root, tmp_path
):
    root = make_data(splits=SPLITS, size=70)
    blocks = []

    class Collector:
        def add(self, block):
            blocks.append(block)

    evaluation = evaluate(bundle, open_root(root), observers=[Collector()])
    assert [block.image.stem for block in blocks] == ["s2", "s3"]
    assert {(b.window.row, b.window.height, b.window.width) for b in blocks} == {(0, 70, 70)}
    for block in blocks:
        scores = tmp_path / f"{block.image.stem}_scores.tif"
        mask = tmp_path / f"{block.image.stem}.tif"
        predict_raster(
            block.image.image, mask, bundle, scores=scores, scores_type="float16", overwrite=True
        )
        with rasterio.open(scores) as raster:
            best = raster.read().max(axis=0)
        np.testing.assert_array_equal(block.guess_HW, read(mask))
        np.testing.assert_array_equal(block.truth_HW, read(block.image.label))
        np.testing.assert_allclose(block.confidence_HW, best, atol=0.5 / 254 + 1e-3)
    counted = sum((block.truth_HW != 255).sum() for block in blocks)
    assert np.sum(evaluation.scores[0].confusion) == counted


def test_strips_of_a_scene_give_the_scores_of_the_whole(
    tiny_bundle, make_data, open_root, monkeypatch
):
    bundle = load_bundle(tiny_bundle)
    data = open_root(make_data(splits=SPLITS, size=70))
    whole = evaluate(bundle, data, protocols=["full", "isprs"]).scores
    monkeypatch.setattr("cvmh.report.strips.ROWS_AT_ONCE", 7)
    strips = evaluate(bundle, data, protocols=["full", "isprs"]).scores
    assert strips == whole
    full, isprs = whole
    assert np.sum(isprs.confusion) < np.sum(full.confusion)
    assert 0 < full.boundary.miou < 1
    assert full.boundary.metres == pytest.approx(1.5, rel=1e-3)


def test_borders_are_scored_where_the_image_has_data_only(
    tiny_bundle, make_data, open_root, tmp_path
):
    bundle = load_bundle(tiny_bundle)
    root = make_data(splits=("train", "val", "test"))
    with Raster(root / "images" / "s2.tif") as raster:
        image, place = raster.read(), {"crs": raster.crs, "transform": raster.transform}
    image[:, 32:] = 0
    write_raster(
        root / "images" / "s2.tif", image, nodata=0, band_names=("red", "green", "blue"), **place
    )
    (scores,) = evaluate(bundle, open_root(root), boundary=2).scores
    predict_raster(root / "images" / "s2.tif", tmp_path / "mask.tif", bundle)
    mask, label = read(tmp_path / "mask.tif"), read(root / "masks" / "s2.tif")
    label[32:] = 255
    counts = count_boundaries(label, mask, 3, width=2)
    expected = score_boundaries(counts, bundle.card.classes, width=2)
    assert scores.boundary.classes == expected.classes
    assert (scores.boundary.miou, scores.boundary.mf1) == (expected.miou, expected.mf1)


def test_borders_are_not_scored_where_that_is_not_wanted(bundle, easy_data, open_root):
    assert evaluate(bundle, open_root(easy_data), boundary=None).scores[0].boundary is None
    with pytest.raises(ConfigError, match="the width of boundaries must be 1 to 100 pixels, got 0"):
        evaluate(bundle, open_root(easy_data), boundary=0)


@pytest.fixture
def predicted(monkeypatch):
    """Return a list that every prediction is noted in: the image and whether it was averaged."""
    calls = []

    def note(image, mask, bundle, **options):
        report = predict_raster(image, mask, bundle, **options)
        calls.append((image.stem, options["tta"], report))
        return report

    monkeypatch.setattr("cvmh.report.evaluation.predict_raster", note)
    return calls


def test_an_image_is_predicted_once_for_all_protocols_and_once_more_with_flips(
    bundle, make_data, open_root, predicted
):
    data = open_root(make_data(splits=SPLITS))
    steps = []
    evaluation = evaluate(
        bundle,
        data,
        protocols=["full", "isprs", "geoseg", "ssrs"],
        progress=lambda *step: steps.append(step),
    )
    assert [call[:2] for call in predicted] == [
        ("s2", False),
        ("s2", True),
        ("s3", False),
        ("s3", True),
    ]
    assert steps[-1] == ("evaluate", 4, 4, "images")
    assert [entry.protocol for entry in evaluation.scores] == ["full", "isprs", "geoseg", "ssrs"]


def test_flips_may_be_averaged_in_the_protocol_that_leaves_it_open(
    bundle, easy_data, open_root, predicted
):
    evaluation = evaluate(bundle, open_root(easy_data), protocols=["full", "isprs"], tta=True)
    assert [entry.facts.tta for entry in evaluation.scores] == [True, False]
    assert [call[1] for call in predicted] == [True, False]


def test_an_observer_sees_the_images_of_the_first_protocol_once(bundle, easy_data, open_root):
    seen = []

    class Collector:
        def add(self, block):
            seen.append(block.image.stem)

    evaluate(bundle, open_root(easy_data), protocols=["isprs", "geoseg"], observers=[Collector()])
    assert seen == ["s3"]


def test_an_interrupted_evaluation_goes_on_where_it_was_stopped(
    bundle, make_data, open_root, tmp_path, predicted
):
    data = open_root(make_data(splits=SPLITS))
    folder = tmp_path / "out" / "unfinished"

    def stop(stage, done, total, unit):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(bundle, data, folder=folder, progress=stop)
    (mask,) = folder.glob("*/mask.tif")
    before = mask.stat().st_mtime_ns
    steps = []
    again = evaluate(
        bundle,
        data,
        folder=folder,
        progress=lambda *step: steps.append((step, mask.stat().st_mtime_ns)),
    )
    # The first mask was not written again, and all of it is gone in the end.
    assert steps[0] == (("evaluate", 1, 2, "images"), before)
    assert not folder.exists()
    assert again.scores == evaluate(bundle, data).scores


def test_predictions_of_another_bundle_are_not_taken_for_finished(
    bundle, tiny_bundle, make_data, open_root, tmp_path
):
    data = open_root(make_data(splits=SPLITS))

    def stop(stage, done, total, unit):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(load_bundle(tiny_bundle), data, folder=tmp_path / "kept", progress=stop)
    found = evaluate(bundle, data, folder=tmp_path / "kept")
    assert found.scores == evaluate(bundle, data).scores


def test_progress_counts_the_images_of_the_split(bundle, make_data, open_root):
    told = []
    evaluate(bundle, open_root(make_data(splits=SPLITS)), progress=lambda *step: told.append(step))
    assert told == [("evaluate", 1, 2, "images"), ("evaluate", 2, 2, "images")]


def test_a_data_set_with_other_classes_is_refused(bundle, make_data, open_root):
    root = make_data()
    entries = json.loads((root / "classes.json").read_text())
    entries[1]["name"] = "lake"
    (root / "classes.json").write_text(json.dumps(entries))
    with pytest.raises(
        ConfigError, match=r"classes field, water, roof, but .* field, lake, roof .*lacks water"
    ):
        evaluate(bundle, open_root(root))


def test_a_label_that_does_not_fit_its_image_is_refused(bundle, make_data, open_root):
    root = make_data()
    write_raster(root / "masks" / "s3.tif", np.zeros((64, 63), "uint8"))
    with pytest.raises(DataError, match=r"s3.tif must be one band of 64 x 64 pixels .* 64 x 63"):
        evaluate(bundle, open_root(root))


def test_a_split_without_a_labelled_pixel_is_told_with_its_first_label(
    bundle, make_data, open_root
):
    root = make_data(splits=SPLITS)
    for stem in ("s2", "s3"):
        write_raster(root / "masks" / f"{stem}.tif", np.full((64, 64), 255, "uint8"))
    with pytest.raises(
        DataError, match=r"'full' has nothing to score, .* split 'test' of data .*masks/s2.tif$"
    ):
        evaluate(bundle, open_root(root))


def test_a_split_without_images_is_refused(bundle, easy_data, open_root):
    with pytest.raises(DataError, match="no image is in split 'holdout'; there are: test, train"):
        evaluate(bundle, open_root(easy_data), split="holdout")
