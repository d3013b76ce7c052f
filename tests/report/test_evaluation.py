import json
import re

import numpy as np
import pytest
import rasterio

from cvmh.config import DataSettings
from cvmh.datasets import open_data
from cvmh.errors import ConfigError, DataError, OutputError
from cvmh.geo.raster import Raster, write_raster
from cvmh.models.bundle import load_bundle
from cvmh.predict import predict_raster
from cvmh.report.evaluation import evaluate, write_scores

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


def test_progress_counts_the_images_of_the_split(bundle, make_data, open_root):
    told = []
    evaluate(bundle, open_root(make_data(splits=SPLITS)), progress=lambda *step: told.append(step))
    assert told == [("evaluate", 1, 2, "images"), ("evaluate", 2, 2, "images")]


def test_a_data_set_with_other_classes_is_refused(bundle, make_data, open_root):
    root = make_data()
    entries = json.loads((root / "classes.json").read_text())
    entries[1]["name"] = "lake"
    (root / "classes.json").write_text(json.dumps(entries))
    with pytest.raises(ConfigError, match=r"classes field, water, roof, but .* field, lake, roof .*lacks water"):
        evaluate(bundle, open_root(root))


def test_a_label_that_does_not_fit_its_image_is_refused(bundle, make_data, open_root):
    root = make_data()
    write_raster(root / "masks" / "s3.tif", np.zeros((64, 63), "uint8"))
    with pytest.raises(DataError, match=r"s3.tif must be one band of 64 x 64 pixels .* 64 x 63"):
        evaluate(bundle, open_root(root))


def test_a_split_without_images_is_refused(bundle, easy_data, open_root):
    with pytest.raises(DataError, match="no image is in split 'holdout'; there are: test, train"):
        evaluate(bundle, open_root(easy_data), split="holdout")


@pytest.fixture
def scores(bundle, easy_data, open_root):
    return evaluate(bundle, open_root(easy_data)).scores


def test_the_file_of_scores_is_a_list_with_an_entry_a_protocol(scores, tmp_path):
    write_scores(tmp_path / "new" / "scores", scores, title="easy")
    (entry,) = json.loads((tmp_path / "new" / "scores" / "scores.json").read_text())
    assert entry.keys() >= {"protocol", "split", "miou", "mf1", "oa", "classes", "confusion"}
    assert list(entry["classes"]) == ["field", "water", "roof"]
    for name, row in entry["classes"].items():
        assert row["iou"] == scores[0].classes[name].iou
        assert row.keys() >= {"iou", "f1", "precision", "recall", "pixels"}
    assert np.sum(entry["confusion"]) == sum(row["pixels"] for row in entry["classes"].values())


def test_the_page_of_scores_holds_the_numbers_and_needs_nothing_else(scores, tmp_path):
    write_scores(tmp_path, scores, title="<script>alert(1)</script> & more")
    page = (tmp_path / "report.html").read_text()
    for value in (scores[0].miou, scores[0].oa, scores[0].classes["roof"].recall):
        assert f"{100 * value:.1f} %" in page
    assert f"{scores[0].classes['field'].pixels:,}" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert not re.search(r"<script|<link|<img|src=|href=|url\(", page)


def test_scores_that_have_no_place_to_go_are_refused(scores, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder .*file/scores cannot be made"):
        write_scores(tmp_path / "file" / "scores", scores, title="easy")


def test_scores_of_an_earlier_evaluation_are_replaced(scores, tmp_path):
    write_scores(tmp_path, scores, title="first")
    write_scores(tmp_path, [scores[0], scores[0]], title="second")
    assert len(json.loads((tmp_path / "scores.json").read_text())) == 2
    assert "second" in (tmp_path / "report.html").read_text()
