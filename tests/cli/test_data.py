"""``cvmh data list`` and ``cvmh data prepare``."""

import json

import pytest

from cvmh.datasets import KNOWN, open_folder


def test_the_known_data_sets_are_listed(cvmh):
    outcome = cvmh("data", "list")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "loveda: LoveDA, 5987 images of 1024 x 1024, 30 cm\n" in outcome.stdout
    assert "  splits   official, cvmh-paper, geoseg, mmseg, ssrs\n" in outcome.stdout
    assert "CC BY-NC-SA 4.0" in outcome.stdout


def test_programs_get_the_list_as_json(cvmh):
    rows = {row["name"]: row for row in json.loads(cvmh("data", "list", "--json").stdout)}
    assert list(rows) == list(KNOWN)
    assert rows["potsdam"]["classes"][5] == "clutter"
    assert rows["potsdam"]["splits"]["ssrs"]["images"] == {"train": 15, "val": 3, "test": 6}
    assert rows["loveda"]["layouts"] == ["torchgeo", "geoseg", "mmseg"]


def test_a_data_set_is_prepared(cvmh, fake_set, tmp_path):
    root = fake_set("vaihingen", "ssrs")
    given = ("data", "prepare", "vaihingen", root, "-o", "prepared")
    outcome = cvmh(*given, "--set", "data.labels=eroded", "--anyway")
    assert (outcome.code, outcome.stdout) == (0, "prepared\n"), outcome.stderr
    data = open_folder(tmp_path / "prepared")
    assert (data.name, data.label_set, len(data.images)) == ("vaihingen", "eroded", 16)
    assert cvmh(*given, "--anyway").stderr.startswith("cvmh: error: prepared is not empty; choose")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "vaihingen in {root} need not be prepared: a crop of 512 pixels decodes"),
        (["--set", "train.epochs=3"], "--set of prepare takes settings of data, such as"),
        (["--set", "data.splits=half"], "data.splits of vaihingen must be one of official"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(cvmh, fake_set, tmp_path, options, sentence):
    root = fake_set("vaihingen", "ssrs")
    outcome = cvmh("data", "prepare", "vaihingen", root, "-o", "prepared", *options)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert sentence.format(root=root) in outcome.stderr and outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
