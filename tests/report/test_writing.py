import json
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio

from cvmh.config import DataSettings
from cvmh.datasets import open_data
from cvmh.errors import OutputError
from cvmh.models.bundle import load_bundle
from cvmh.report.areas import estimate_evaluation
from cvmh.report.evaluation import evaluate
from cvmh.report.run_folder import read_run_folder
from cvmh.report.writing import PageObserver, write_evaluation

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(finished_run):
    return load_bundle(finished_run / "best.safetensors")


@pytest.fixture(scope="module")
def seen():
    return PageObserver(3)


@pytest.fixture(scope="module")
def evaluation(bundle, easy_data, seen):
    data = open_data(DataSettings(root=easy_data))
    return evaluate(bundle, data, protocols=["full", "isprs"], observers=[seen])


@pytest.fixture(scope="module")
def folder(evaluation, bundle, seen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores") / "new" / "scores"
    write_evaluation(folder, evaluation, bundle, seen, command="cvmh evaluate --x", now=NOON)
    return folder


def test_the_file_of_scores_is_a_list_with_an_entry_a_protocol(folder, evaluation):
    entries = json.loads((folder / "scores.json").read_text())
    assert [entry["protocol"] for entry in entries] == ["full", "isprs"]
    assert entries[0].keys() >= {"protocol", "split", "miou", "mf1", "oa", "classes", "confusion"}
    for entry, scores in zip(entries, evaluation.scores, strict=True):
        assert list(entry["classes"]) == ["field", "water", "roof"]
        for name, row in entry["classes"].items():
            assert row["iou"] == scores.classes[name].iou
        assert np.sum(entry["confusion"]) == sum(row["pixels"] for row in entry["classes"].values())


def test_the_file_of_scores_holds_areas_and_reliability(folder, seen):
    first, second = json.loads((folder / "scores.json").read_text())
    areas = first["area_estimates"]
    confusion = np.array(first["confusion"])
    # Half a metre in UTM is 0.5 / 0.9996 on the ground.
    pixel = (0.5 / 0.9996) ** 2
    assert (areas["unit"], areas["sample_split"]) == ("m2", "val")
    assert list(areas["labelled"].values()) == pytest.approx(confusion.sum(axis=1) * pixel)
    mapped = [row["mapped"] for row in areas["classes"].values()]
    assert mapped == pytest.approx(confusion.sum(axis=0) * pixel)
    # Eroded labels lack ground along every border.
    assert second["area_estimates"] is None
    found = first["reliability"]
    assert found["overall"] == seen.reliability.found.model_dump(mode="json")
    assert list(found["classes"]) == ["field", "water", "roof"]
    pixels = [sum(row["counts"]) for row in found["classes"].values()]
    assert pixels == confusion.sum(axis=0).tolist()
    assert "reliability" not in second


def test_areas_are_those_of_the_scored_ground_not_of_that_which_was_trained_on(
    bundle, make_data, tmp_path
):
    root, seen = make_data(), PageObserver(3)
    for path in root.rglob("*.tif"):
        with rasterio.open(path, "r+") as raster:
            a, b, c, d, e, f = raster.transform[:6]
            raster.transform = rasterio.Affine(3 * a, b, c, d, 3 * e, f)
    found = evaluate(bundle, open_data(DataSettings(root=root)), observers=[seen])
    write_evaluation(tmp_path / "scores", found, bundle, seen)
    (entry,) = json.loads((tmp_path / "scores" / "scores.json").read_text())
    labelled = sum(entry["area_estimates"]["labelled"].values())
    assert labelled == pytest.approx(np.sum(entry["confusion"]) * (3 * bundle.card.gsd) ** 2)


def test_areas_are_measured_scene_by_scene_where_their_pixels_differ(bundle, make_data):
    root = make_data(splits=("train", "val", "test", "test"))
    for path in root.glob("*/s3.tif"):
        with rasterio.open(path, "r+") as raster:
            a, b, c, d, e, f = raster.transform[:6]
            raster.transform = rasterio.Affine(3 * a, b, c, d, 3 * e, f)
    found = evaluate(bundle, open_data(DataSettings(root=root)))
    # Four rows of each label are ignored; one pixel of the second scene is nine of the first.
    labelled = 60 * 64 * bundle.card.gsd**2 * (1 + 9)
    areas = estimate_evaluation(found, bundle.card)
    assert areas.unit == "m2"
    assert sum(areas.labelled.values()) == pytest.approx(labelled)


def test_the_page_holds_what_the_scores_say_and_what_was_seen(folder, read_page, bundle):
    page = read_page((folder / "report.html").read_text())
    assert not page.wrong and not page.of("script")
    for entry in json.loads((folder / "scores.json").read_text()):
        for name, row in entry["classes"].items():
            figures = [f"{100 * row[key]:.1f}" for key in ("iou", "f1", "precision", "recall")]
            assert any(cells[0].startswith(name) and cells[1:5] == figures for cells in page.rows)
    assert "cvmh evaluate --x" in page.text and "2026-01-02 12:00 UTC" in page.text
    assert str(bundle.path) in page.text and "test (1 image)" in page.text
    assert {a["id"] for a in page.of("section")} >= {"windows", "reliability", "training"}
    assert [image["alt"][:5] for image in page.of("img")] == ["image", "label", "predi", "error"]
    # The settings of the run, word by word.
    assert (bundle.path.parent / "config.yaml").read_text() in page.text


def test_a_page_is_small(folder):
    assert (folder / "report.html").stat().st_size < 400_000


def test_the_page_differs_by_its_date_alone(folder, evaluation, bundle, seen, tmp_path):
    later = NOON.replace(hour=13)
    write_evaluation(tmp_path, evaluation, bundle, seen, command="cvmh evaluate --x", now=later)
    first, second = ((place / "report.html").read_text() for place in (folder, tmp_path))
    assert first != second
    assert first == second.replace("2026-01-02 13:00 UTC", "2026-01-02 12:00 UTC")


def test_what_was_observed_is_what_was_scored(evaluation, seen):
    confusion = np.array(evaluation.scores[0].confusion)
    found = seen.reliability.found
    assert found.pixels == confusion.sum() and sum(found.hits) == np.trace(confusion)
    (window,) = seen.windows.worst
    assert window.wrong == pytest.approx(1 - np.trace(confusion) / confusion.sum())


def test_a_folder_that_is_named_like_a_known_set_is_not_compared_with_what_is_published(
    bundle, make_data, tmp_path
):
    data, seen = open_data(DataSettings(root=make_data("potsdam"))), PageObserver(3)
    found = evaluate(bundle, data, protocols=["isprs"], observers=[seen])
    write_evaluation(tmp_path / "scores", found, bundle, seen)
    page = (tmp_path / "scores" / "report.html").read_text()
    assert "<h1>cvmh_unet_nano on potsdam, split test</h1>" in page
    assert "Published figures" not in page


def test_scores_that_have_no_place_to_go_are_refused(evaluation, bundle, seen, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder .*file/scores cannot be made"):
        write_evaluation(tmp_path / "file" / "scores", evaluation, bundle, seen)


def test_scores_of_an_earlier_evaluation_are_replaced(evaluation, bundle, seen, tmp_path):
    (tmp_path / "scores.json").write_text("old")
    (tmp_path / "report.html").write_text("old")
    write_evaluation(tmp_path, evaluation, bundle, seen)
    assert len(json.loads((tmp_path / "scores.json").read_text())) == 2
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_a_run_is_read_with_epochs_that_lack_some_figures(finished_run, tmp_path):
    run = read_run_folder(finished_run)
    assert [row["epoch"] for row in run.rows] == list(range(1, 9))
    for name in ("run.json", "config.yaml"):
        assert read_run_folder(tmp_path) is None
        (tmp_path / name).write_text("text")
    assert read_run_folder(tmp_path).rows == ()
    (tmp_path / "metrics.csv").write_text("epoch,train_loss,val_miou\n1,0.5,\n2,nonsense\n,1,1\n")
    assert read_run_folder(tmp_path).rows == ({"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0})
