import json

from cvmh.datasets import open_folder


def test_evaluate_prints_the_scores_and_leaves_them_in_a_folder(
    cvmh, finished_run, easy_data, visible, tmp_path
):
    bundle = finished_run / "best.safetensors"
    outcome = cvmh("evaluate", bundle, "--data", easy_data, "--split", "val", "--out", "scores")
    assert outcome.code == 0
    assert visible(tmp_path / "scores") == {"scores.json", "report.html"}
    (entry,) = json.loads((tmp_path / "scores" / "scores.json").read_text())
    lines = outcome.stdout.splitlines()
    assert lines[0] == "protocol full, split val"
    assert lines[1].split()[:3] == ["field", "IoU", f"{entry['classes']['field']['iou']:.4f}"]
    assert f"mIoU {entry['miou']:.4f}" in lines[-1]
    assert len(lines) == 5


def test_info_prints_a_fact_a_line(cvmh, make_scene, tiny_bundle):
    make_scene()
    outcome = cvmh("info", "scene.tif", "--checkpoint", tiny_bundle)
    facts = dict(line.split(maxsplit=1) for line in outcome.stdout.splitlines())
    assert (facts["kind"], facts["bands"]) == ("raster", "red, green, blue")
    assert facts["fits"] == "yes, with bands [1, 2, 3]"


def test_info_as_json_can_be_read_by_a_script(cvmh, tiny_bundle):
    facts = json.loads(cvmh("info", tiny_bundle, "--json").stdout)
    assert (facts["kind"], facts["mean"]) == ("bundle", [120.0, 110.0, 120.0])


def test_data_synth_leaves_a_data_set_that_opens(cvmh, tmp_path):
    outcome = cvmh("data", "synth", "made", "--scenes", "2", "--size", "64")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "made\n", "")
    data = open_folder(tmp_path / "made")
    assert [image.split for image in data.images] == ["train", "val"]
