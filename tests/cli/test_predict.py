import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from cvmh.geo.raster import Raster, write_raster
from cvmh.models.bundle import read_card


def read(path):
    with Raster(path) as raster:
        return raster.read()[0]


def test_a_scene_becomes_a_mask_and_only_its_name_goes_to_stdout(
    cvmh, make_scene, tiny_bundle, visible
):
    make_scene(height=50, width=70)
    outcome = cvmh("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle)
    assert (outcome.code, outcome.stdout) == (0, "mask.tif\n")
    assert "100% with data" in outcome.stderr
    assert visible() == {"scene.tif", "mask.tif"}
    assert read("mask.tif").shape == (50, 70)


def test_the_mask_keeps_the_command_line(cvmh, make_scene, tiny_bundle):
    make_scene("my scene.tif")
    cvmh("predict", "my scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle)
    with Raster("m.tif") as raster:
        kept = raster.tags["CVMH_COMMAND"]
    assert kept == f"cvmh predict 'my scene.tif' -o m.tif --checkpoint {tiny_bundle}"


@pytest.mark.parametrize(
    ("output", "masks"),
    [
        ("masks", {"masks/a.tif", "masks/b.tif"}),
        ("masks.2026", {"masks.2026/a.tif", "masks.2026/b.tif"}),
        ("{stem}_mask.tif", {"a_mask.tif", "b_mask.tif"}),
    ],
)
def test_several_scenes_go_to_a_folder_or_to_a_pattern(
    cvmh, make_scene, tiny_bundle, tmp_path, output, masks
):
    make_scene("in/a.tif")
    make_scene("in/b.tif")
    outcome = cvmh("predict", "in/a.tif", "in/b.tif", "-o", output, "--checkpoint", tiny_bundle)
    assert outcome.code == 0 and set(outcome.stdout.split()) == masks
    assert all((tmp_path / name).is_file() for name in masks)


@pytest.mark.parametrize("output", ["mask.tif", "mask.TIFF"])
def test_one_mask_for_several_scenes_is_refused(cvmh, make_scene, tiny_bundle, visible, output):
    scenes = [make_scene("a.tif"), make_scene("b.tif")]
    before = visible()
    outcome = cvmh("predict", *scenes, "-o", output, "--checkpoint", tiny_bundle)
    assert outcome.code == 2
    assert "several scenes need a folder or a pattern with {stem}" in outcome.stderr
    assert visible() == before


def test_one_scene_goes_into_a_folder_that_exists(cvmh, make_scene, tiny_bundle, tmp_path):
    make_scene()
    (tmp_path / "masks").mkdir()
    outcome = cvmh("predict", "scene.tif", "-o", "masks", "--checkpoint", tiny_bundle)
    assert outcome.stdout == f"{Path('masks') / 'scene.tif'}\n"


def test_a_mask_is_replaced_only_on_request(cvmh, make_scene, tiny_bundle, tmp_path):
    make_scene()
    (tmp_path / "mask.tif").write_text("mine")
    command = ("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle)
    outcome = cvmh(*command)
    assert outcome.code == 1
    assert outcome.stderr == (
        "cvmh: error: mask mask.tif exists; choose another name or add --overwrite\n"
    )
    assert (tmp_path / "mask.tif").read_text() == "mine"
    assert cvmh(*command, "--overwrite").code == 0
    assert read("mask.tif").shape == (64, 64)


def test_scenes_that_fail_are_named_and_the_others_are_written(
    cvmh, make_scene, tiny_bundle, visible, tmp_path
):
    make_scene("good.tif")
    (tmp_path / "bad.tif").write_bytes(b"")
    scenes = ("bad.tif", "good.tif", "none.tif")
    outcome = cvmh("predict", *scenes, "-o", "masks", "--checkpoint", tiny_bundle)
    assert (outcome.code, outcome.stdout) == (3, f"{Path('masks') / 'good.tif'}\n")
    errors = [line for line in outcome.stderr.splitlines() if "error" in line]
    assert errors[0].startswith("cvmh: error: bad.tif: bad.tif is empty (0 bytes)")
    assert errors[1] == "cvmh: error: none.tif: none.tif does not exist"
    assert outcome.stderr.endswith("cvmh: 2 of 3 scenes failed\n")
    assert visible(tmp_path / "masks") == {"good.tif"}


def test_progress_as_json_is_an_object_a_line_on_stderr(cvmh, make_scene, tiny_bundle):
    make_scene(height=100, width=100)
    outcome = cvmh(
        *("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle),
        *("--overlap", "0", "--progress", "json"),
    )
    lines = [json.loads(text) for text in outcome.stderr.splitlines() if text.startswith("{")]
    assert lines[-1] == {
        "stage": "predict",
        "done": 16,
        "total": 16,
        "unit": "tiles",
        "eta_s": 0.0,
    }
    assert all(line.keys() == lines[-1].keys() for line in lines)
    assert outcome.stdout == "m.tif\n"


def test_progress_is_silent_where_there_is_no_terminal(cvmh, make_scene, tiny_bundle):
    make_scene()
    outcome = cvmh("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle)
    assert outcome.stderr.count("\n") == 1 and "Mpx/s" in outcome.stderr


def test_without_a_bundle_the_newest_finished_run_is_used_and_named(
    cvmh, make_scene, tiny_bundle, tmp_path
):
    make_scene()
    for age, name in ((0, "new"), (100, "old")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "best.safetensors").write_bytes(tiny_bundle.read_bytes())
        moment = time.time() - age
        os.utime(run / "best.safetensors", (moment, moment))
    (tmp_path / "runs" / "killed").mkdir()
    (tmp_path / "runs" / "killed" / "best.unfinished.safetensors").write_bytes(b"x")
    outcome = cvmh("predict", "scene.tif", "-o", "m.tif")
    newest = Path("runs") / "new" / "best.safetensors"
    assert outcome.code == 0
    assert outcome.stderr.startswith(f"cvmh: using the newest bundle, {newest}\n")


def test_tile_batch_and_bands_are_passed_on(cvmh, make_scene, tiny_bundle):
    make_scene()
    outcome = cvmh(
        *("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle, "--tile", "64"),
        *("--overlap", "0.5", "--batch", "2", "--bands", "3,2,1", "--device", "cpu"),
    )
    assert outcome.code == 0
    with Raster("m.tif") as raster:
        tags = raster.tags
    assert (tags["CVMH_TILE"], tags["CVMH_OVERLAP"]) == ("64", "0.5")
    assert tags["CVMH_BANDS"] == "(3, 2, 1)"


def test_another_dtype_needs_force(cvmh, make_scene, tiny_bundle, visible):
    make_scene(dtype="uint16")
    command = ("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle)
    outcome = cvmh(*command)
    assert outcome.code == 1 and "must be uint8 as in training, got uint16" in outcome.stderr
    assert visible() == {"scene.tif"}
    assert cvmh(*command, "--force").code == 0


def test_pixels_much_larger_than_those_of_training_are_resampled_or_warned_of(cvmh, tiny_bundle):
    write_raster(
        "far.tif",
        np.full((3, 40, 40), 9, "uint8"),
        crs="EPSG:32632",
        transform=Affine(1, 0, 500_000, 0, -1, 5_400_000),
        band_names=read_card(tiny_bundle).band_names,
    )
    command = ("predict", "far.tif", "-o", "m.tif", "--checkpoint", tiny_bundle)
    outcome = cvmh(*command)
    assert outcome.code == 0
    assert outcome.stderr.startswith("cvmh: far.tif has pixels of 1 m; the network sees them")
    assert read("m.tif").shape == (40, 40)
    outcome = cvmh(*command, "--no-resample", "--overwrite")
    assert outcome.code == 0
    assert outcome.stderr.startswith("cvmh: warning: far.tif has pixels of 1 m")
