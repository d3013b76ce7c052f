import json

import pytest

from cvmh.datasets import open_folder


def test_evaluate_prints_the_scores_and_leaves_them_in_a_folder(
    cvmh, finished_run, easy_data, visible, tmp_path
):
    bundle = finished_run / "best.safetensors"
    outcome = cvmh("evaluate", bundle, "--data", easy_data, "--split", "val", "--out", "scores")
    assert outcome.code == 0
    assert visible(tmp_path / "scores") == {"scores.json", "report.html"}
    (entry,) = json.loads((tmp_path / "scores" / "scores.json").read_text())
    printed, areas = outcome.stdout.split("areas in m2, protocol full, split val\n")
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    field = entry["classes"]["field"]
    assert lines["field"] == [f"{field['iou']:.4f}", f"{field['f1']:.4f}", f"{field['pixels']:,}"]
    assert lines["mean"] == [f"{entry['miou']:.4f}", f"{entry['mf1']:.4f}"]
    assert lines["borders,"][:2] == ["3", "px"]
    rows = {line.split()[0]: line.split()[1:] for line in areas.splitlines()}
    estimate = entry["area_estimates"]["classes"]["field"]["area"]["estimate"]
    assert rows["field"][1] == f"{estimate:,.2f}"
    assert printed.splitlines()[-1] == (
        "protocol full, split val: full labels, the data set's own split, means of all classes, "
        "OA of all classes, no test-time augmentation, stitched scenes, SELECTION SPLIT of this "
        "bundle (1 of 1 images: s2)"
    )


def test_evaluate_shows_protocols_side_by_side_each_with_its_facts(cvmh, finished_run, easy_data):
    bundle = finished_run / "best.safetensors"
    outcome = cvmh(
        "evaluate",
        bundle,
        "--data",
        easy_data,
        "--protocol",
        "full",
        "--protocol",
        "isprs",
        "--tta",
    )
    lines = outcome.stdout.split("areas in ")[0].splitlines()
    assert lines[0].split() == ["full", "isprs"]
    assert [len(line.split()) for line in lines if line.startswith("field")] == [6]
    full, isprs, note = lines[-3:]
    assert full.startswith("protocol full, split test: full labels")
    assert "averaged over flips and turns" in full
    assert isprs.startswith(
        "protocol isprs, split test: eroded labels (made here with a disc of 3 pixels)"
    )
    assert "no test-time augmentation" in isprs
    assert note.startswith("  note: the benchmark lists F1 of five classes")


@pytest.mark.parametrize("name", ["scores.json", "report.html"])
def test_the_scores_of_another_evaluation_are_not_replaced_unasked(
    cvmh, tiny_bundle, easy_data, tmp_path, name
):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / name).write_text("mine")
    arguments = ("evaluate", tiny_bundle, "--data", easy_data, "--out", "scores")
    outcome = cvmh(*arguments)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.splitlines()[-1].endswith(
        f"scores holds {name} of another evaluation; choose another --out, or replace them with "
        "--overwrite"
    )
    assert [path.name for path in (tmp_path / "scores").iterdir()] == [name]
    assert (tmp_path / "scores" / name).read_text() == "mine"
    assert cvmh(*arguments, "--overwrite").code == 0
    assert (tmp_path / "scores" / name).read_text() != "mine"


def test_an_evaluation_that_left_no_scores_goes_on_unasked(
    cvmh, tiny_bundle, easy_data, tmp_path, visible
):
    (tmp_path / "scores" / ".predictions").mkdir(parents=True)
    arguments = ("evaluate", tiny_bundle, "--data", easy_data, "--out", "scores")
    assert cvmh(*arguments).code == 0
    assert visible(tmp_path / "scores") == {"scores.json", "report.html"}


def test_scores_are_not_left_in_a_file(cvmh, tiny_bundle, easy_data, tmp_path):
    (tmp_path / "scores").write_text("mine")
    outcome = cvmh("evaluate", tiny_bundle, "--data", easy_data, "--out", "scores")
    assert outcome.code == 1
    assert "--out must be a folder, but scores is a file; name another one" in outcome.stderr
    assert (tmp_path / "scores").read_text() == "mine"


def test_evaluate_takes_no_settings_but_those_of_the_data(cvmh, tiny_bundle, easy_data):
    outcome = cvmh("evaluate", tiny_bundle, "--data", easy_data, "--set", "train.epochs=3")
    assert outcome.code == 1
    assert "--set of evaluate takes settings of data, such as data.layout=mmseg, got 'train'" in (
        outcome.stderr
    )


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
