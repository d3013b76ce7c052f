import json
import re

import pytest

from cvmh.errors import BundleError, DataError, RasterError
from cvmh.models.bundle import load_bundle
from cvmh.predict import predict_raster
from cvmh.report.info import describe


def test_a_raster_is_described_by_its_grid_and_bands(make_scene):
    facts = describe(make_scene(height=48, width=80))
    assert facts["kind"] == "raster"
    assert facts["size"] == "48 rows x 80 columns"
    assert facts["bands"] == ["red", "green", "blue"]
    assert (facts["dtype"], facts["nodata"]) == (["uint8"], [0.0, 0.0, 0.0])
    assert (facts["crs"], facts["alpha"]) == ("EPSG:32632", "none")
    assert facts["gsd_m"] == pytest.approx(0.5, rel=1e-3)
    assert "fits" not in facts


@pytest.mark.parametrize(
    ("scene", "verdict"),
    [
        ({}, r"yes, with bands \[1, 2, 3\]$"),
        ({"num_bands": 2}, r"no: .*blue"),
        ({"dtype": "uint16"}, r"no: .* must be uint8 as in training, got uint16"),
    ],
)
def test_a_raster_is_held_against_a_bundle(make_scene, tiny_bundle, scene, verdict):
    fits = describe(make_scene(**scene), checkpoint=tiny_bundle)["fits"]
    assert re.match(verdict, fits)


def test_a_mask_is_described_with_the_model_that_made_it(make_scene, tiny_bundle, tmp_path):
    mask = tmp_path / "mask.tif"
    predict_raster(make_scene(), mask, load_bundle(tiny_bundle), command="cvmh predict ...")
    facts = describe(mask)
    assert (facts["kind"], facts["model"]) == ("mask", "cvmh_unet_nano")
    assert facts["command"] == "cvmh predict ..."
    assert [entry["name"] for entry in json.loads(facts["classes"])] == ["field", "water", "roof"]


def test_a_bundle_is_described_by_its_header(tiny_bundle):
    facts = describe(tiny_bundle)
    assert (facts["kind"], facts["model"], facts["tile"]) == ("bundle", "cvmh_unet_nano", 32)
    assert facts["classes"] == ["field", "water", "roof"]
    assert facts["scores"] == {"protocol": "full", "split": "val", "miou": 0.25}


def test_a_bundle_says_in_one_line_whether_it_is_calibrated(tiny_bundle, finished_run):
    facts = describe(tiny_bundle)
    assert facts["calibration"] == "not calibrated"
    assert facts["area_sample"] == "none, so 'cvmh predict --report' estimates no areas"
    facts = describe(finished_run / "best.safetensors")
    pattern = r"on split 'val', 3,840 pixels: temperature \S+ takes .* from \S+% to \S+%"
    assert re.fullmatch(pattern, facts["calibration"])
    assert facts["area_sample"].startswith("split 'val', 3,840 pixels in 4 runs of tiles in few")


def test_a_finished_run_is_described_by_its_record(finished_run, easy_data):
    facts = describe(finished_run)
    assert (facts["kind"], facts["state"]) == ("run", "finished")
    assert (facts["epochs"], facts["root"]) == ("8 of 8", str(easy_data))
    assert facts["bundle"] == str(finished_run / "best.safetensors")
    assert facts["best"]["val_miou"] > 0.9


@pytest.mark.parametrize("kind", ["raster", "bundle", "run"])
def test_all_facts_can_be_written_as_json(kind, make_scene, tiny_bundle, finished_run):
    path = {"raster": make_scene, "bundle": lambda: tiny_bundle, "run": lambda: finished_run}[kind]
    facts = describe(path())
    assert json.loads(json.dumps(facts)).keys() == facts.keys()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is no run folder; it has no config.yaml and run.json"):
        describe(tmp_path)


def test_a_damaged_record_of_a_run_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("train: {epochs: 3}\n")
    (tmp_path / "run.json").write_text('{"state": "fin')
    with pytest.raises(DataError, match=r"run.json is damaged"):
        describe(tmp_path)


def test_a_file_that_is_nothing_known_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("some words")
    with pytest.raises(RasterError, match=r"notes.txt is not a raster"):
        describe(tmp_path / "notes.txt")
    (tmp_path / "x.safetensors").write_text("some words")
    with pytest.raises(BundleError, match=r"x.safetensors is not a bundle"):
        describe(tmp_path / "x.safetensors")
