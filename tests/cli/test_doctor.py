"""``cvmh data doctor``: what it prints, writes, and exits with."""

import json
import re

import numpy as np
import pytest
import rasterio

from cvmh.datasets.synthetic_set import write_synthetic
from cvmh.geo.raster import write_raster


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "clean"
    write_synthetic(root, num_scenes=6, seed=6, height=256, width=256, gsd=0.25)
    return root


@pytest.fixture
def data(clean, tmp_path):
    """Return a copy of the clean set that the test may change."""
    root = tmp_path / "my <tiles>"
    for path in sorted(clean.rglob("*")):
        if path.is_file():
            target = root / path.relative_to(clean)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


def shift(path, down):
    with rasterio.open(path) as dataset:
        array, profile = dataset.read(), (dataset.crs, dataset.transform, dataset.nodata)
    crs, transform, nodata = profile
    array = np.roll(array, down, axis=1)
    write_raster(path, array, crs=crs, transform=transform, nodata=nodata)


def test_a_clean_set_is_told_so_and_exits_with_0(cvmh, clean):
    outcome = cvmh("data", "doctor", "folder", clean)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == (
        f"folder in {clean}: 6 images (train 5, val 1)\nnothing wrong was found\n"
    )


def test_warnings_exit_with_0_and_with_1_if_asked_for(cvmh, data):
    shift(data / "masks" / "scene_0007.tif", 6)
    outcome = cvmh("data", "doctor", "folder", data)
    assert outcome.code == 0
    assert "warning  scene_0007.tif lies 6 px below of where" in outcome.stdout
    assert "in masks/scene_0007.tif\n         -> move the label back" in outcome.stdout
    assert outcome.stdout.endswith("1 warning\n")
    assert cvmh("data", "doctor", "folder", data, "--strict").code == 1


def test_errors_exit_with_1_and_json_holds_everything(cvmh, data):
    (data / "masks" / "scene_0008.tif").write_bytes(b"")
    outcome = cvmh("data", "doctor", "folder", data, "--json")
    assert outcome.code == 1
    told = json.loads(outcome.stdout)
    assert (told["errors"], told["warnings"], told["notes"]) == (1, 0, 0)
    (finding,) = told["findings"]
    assert finding["code"] == "damaged-file"
    assert finding["places"] == [{"file": "masks/scene_0008.tif"}]
    assert told["splits"]["train"]["images"] == 5
    assert set(told["splits"]["val"]["class_pixels"]) > {"building", "car"}
    assert [band["name"] for band in told["bands"]] == ["red", "green", "blue"]
    assert all(0 < band["mean"] < 255 for band in told["bands"])


def test_many_findings_of_one_kind_are_told_shortly(cvmh, data):
    for number in range(6, 12):
        (data / "masks" / f"scene_{number:04d}.tif").write_bytes(b"")
    stdout = cvmh("data", "doctor", "folder", data).stdout
    assert stdout.count("[damaged-file]") == 4
    assert "error    and 2 more like this" in stdout


def test_the_page_stands_alone_and_shows_what_is_wrong(cvmh, data, tmp_path):
    shift(data / "masks" / "scene_0007.tif", 6)
    outcome = cvmh("data", "doctor", "folder", data, "--html", "doctor.html")
    assert outcome.stderr == "cvmh: wrote doctor.html\n"
    page = (tmp_path / "doctor.html").read_text()
    assert "Scene_0007.tif lies 6 px below" in page and "What to do:" in page
    assert page.count("<img") == 1 and "masks/scene_0007.tif: image, label, both" in page
    assert "low_vegetation" in page and "Share of the labelled pixels" in page
    # Names from the disk enter as text; nothing is fetched from elsewhere.
    assert "my &lt;tiles&gt;" in page and "<tiles>" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)


def test_a_page_is_not_overwritten_unasked(cvmh, clean, tmp_path):
    page = tmp_path / "doctor.html"
    page.write_text("mine")
    outcome = cvmh("data", "doctor", "folder", clean, "--html", page)
    assert outcome.code == 1 and "--overwrite" in outcome.stderr
    assert page.read_text() == "mine"
    assert cvmh("data", "doctor", "folder", clean, "--html", page, "--overwrite").code == 0
    assert page.read_text() != "mine"


def test_a_folder_that_holds_no_such_set_is_one_sentence(cvmh, tmp_path):
    outcome = cvmh("data", "doctor", "potsdam", tmp_path)
    assert outcome.code == 1
    assert "holds no ISPRS Potsdam" in outcome.stdout and "[not-opened]" in outcome.stdout


def test_a_wrong_name_is_an_error(cvmh, tmp_path):
    outcome = cvmh("data", "doctor", "potsdamm", tmp_path)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "did you mean 'potsdam'?" in outcome.stderr
