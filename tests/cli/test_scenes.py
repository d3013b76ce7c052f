"""Which scenes a command means: files, patterns, lists, VRTs; and what is done with each."""

import json
import os
import shutil
from pathlib import Path

import click
import numpy as np
import pytest

from cvmh.cli.scenes import find_masks, find_scenes, place_beside, stem_of
from cvmh.errors import RasterError
from cvmh.geo.raster import Raster

SUFFIXES = (".tif", ".tiff")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return a function that makes empty files in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")

    return make


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["b.tif", "a.tif"], ["b.tif", "a.tif"]),
        (["a.tif", "b.tif", "a.tif"], ["a.tif", "b.tif"]),
        (["*.tif"], ["a.tif", "b.tif"]),
        (["?.tif", "a.tif"], ["a.tif", "b.tif"]),
        (["[b-z].tif"], ["b.tif"]),
        (["in/*"], ["in/c.tif"]),
        (["**/*.tif"], ["a.tif", "b.tif", "in/c.tif", "in/deep/d.tif"]),
        # A name with a bracket that is a file is that file.
        (["e[1].tif"], ["e[1].tif"]),
        # Whether a file is there is said by whoever opens it, scene by scene.
        (["none.tif"], ["none.tif"]),
        (["http://host/*.tif?a=[1]"], ["http://host/*.tif?a=[1]"]),
        (["/vsizip/x.zip/*.tif"], ["/vsizip/x.zip/*.tif"]),
    ],
)
def test_names_mean_scenes(files, given, found):
    files("b.tif", "a.tif", "in/c.tif", "in/deep/d.tif")
    if given == ["e[1].tif"]:
        files("e[1].tif")
    assert [name.replace(os.sep, "/") for name in find_scenes(given)] == found


def test_a_list_names_scenes_patterns_and_other_lists(files, tmp_path):
    files("a.tif", "b.tif", "in/c.tif")
    (tmp_path / "inner.txt").write_text("in/c.tif\na.tif\n")
    (tmp_path / "scenes.TXT").write_bytes(
        b"\xef\xbb\xbf# scenes of May\r\n\r\n  b.tif \r\n*.tif\r\ninner.txt\r\nhttp://h/x.tif\r\n"
    )
    assert find_scenes(["scenes.TXT"]) == ("b.tif", "a.tif", "in/c.tif", "http://h/x.tif")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("*.jp2", None, r"no file matches \*\.jp2; check the folder and the pattern"),
        ("sub*", None, r"no file matches sub\*"),
        ("none.txt", None, r"the list of scenes none\.txt cannot be read"),
        ("empty.txt", "# nothing\n\n", r"empty\.txt names none; write one a line"),
        ("binary.txt", b"\xff\xfe\x00\x81", r"binary\.txt cannot be read"),
        ("loop.txt", "a.tif\nloop.txt\n", r"list of scenes loop\.txt names itself"),
    ],
)
def test_what_means_no_scene_is_named(files, tmp_path, name, content, sentence):
    files("a.tif", "subfolder/a.tif")
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RasterError, match=sentence):
        find_scenes([name])


@pytest.mark.parametrize(
    ("scene", "stem"),
    [
        ("in/a.b.tif", "a.b"),
        ("https://host/x/my%20scene.tif?token=a/b.tif", "my scene"),
        ("/vsicurl/http://host/c.tif", "c"),
        ("s3://bucket/d.tif", "d"),
    ],
)
def test_the_stem_of_a_scene_is_its_bare_name(scene, stem):
    assert stem_of(scene) == stem


def test_each_scene_has_a_mask_of_its_own(files, tmp_path):
    (tmp_path / "there").mkdir()
    assert find_masks(["a.tif"], "m.tif", SUFFIXES) == [Path("m.tif")]
    assert find_masks(["in/a.jp2"], str(tmp_path / "there"), SUFFIXES) == [
        tmp_path / "there" / "a.tif"
    ]
    scenes = ["in/a.jp2", "b.tif"]
    assert find_masks(scenes, "new", SUFFIXES) == [Path("new/a.tif"), Path("new/b.tif")]
    assert find_masks(scenes, "{stem}/m.tif", SUFFIXES) == [Path("a/m.tif"), Path("b/m.tif")]
    for wrong in ("m.tif", "m.TIFF"):
        with pytest.raises(click.UsageError, match="folder or a pattern"):
            find_masks(scenes, wrong, SUFFIXES)
    with pytest.raises(click.UsageError, match="two scenes have the same name"):
        find_masks(["in/a.jp2", "a.tif"], "new", SUFFIXES)


def test_other_outputs_of_several_scenes_need_patterns():
    asked = {"scores": "s/{stem}.tif", "report": None}
    assert place_beside(["a.tif", "x/b.vrt"], asked) == [
        {"scores": "s/a.tif", "report": None},
        {"scores": "s/b.tif", "report": None},
    ]
    assert place_beside(["a.tif"], {"report": "r.json"}) == [{"report": "r.json"}]
    with pytest.raises(click.UsageError, match=r"--report needs \{stem\} in its name"):
        place_beside(["a.tif", "b.tif"], {"report": "r.json"})


def read(path):
    with Raster(path) as raster:
        return raster.read()[0]


def test_a_quoted_pattern_and_patterns_of_outputs_make_a_set_for_each_scene(
    cvmh, make_scene, tiny_bundle, visible, tmp_path
):
    for name in ("in/a.tif", "in/b.tif"):
        make_scene(name, height=40, width=40)
    outcome = cvmh(
        *("predict", "in/*.tif", "-o", "out/{stem}/mask.tif", "--checkpoint", tiny_bundle),
        *("--confidence", "conf/{stem}.tif", "--report", "out/{stem}/report.json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert visible(tmp_path / "conf") == {"a.tif", "b.tif"}
    for stem in ("a", "b"):
        assert visible(tmp_path / "out" / stem) == {"mask.tif", "report.json"}
        report = json.loads((tmp_path / "out" / stem / "report.json").read_text())
        assert Path(report["scene"]).stem == stem
    assert not list(tmp_path.glob("**/.*"))


def test_a_vrt_of_a_scene_has_the_same_mask(cvmh, make_scene, tiny_bundle, tmp_path):
    make_scene("scene.tif", height=90, width=70)
    names = enumerate(("Red", "Green", "Blue"), start=1)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><NoDataValue>0</NoDataValue>'
        f'<ColorInterp>{name}</ColorInterp><SimpleSource><SourceFilename relativeToVRT="1">'
        f"scene.tif</SourceFilename><SourceBand>{number}</SourceBand></SimpleSource>"
        "</VRTRasterBand>"
        for number, name in names
    )
    with Raster(tmp_path / "scene.tif") as scene:
        a, b, c, d, e, f = tuple(scene.transform)[:6]
    place = f"<SRS>EPSG:32632</SRS><GeoTransform>{c},{a},{b},{f},{d},{e}</GeoTransform>"
    (tmp_path / "whole.vrt").write_text(
        f'<VRTDataset rasterXSize="70" rasterYSize="90">{place}{bands}</VRTDataset>'
    )
    outcome = cvmh("predict", "*.tif", "*.vrt", "-o", "masks", "--checkpoint", tiny_bundle)
    assert outcome.code == 0, outcome.stderr
    np.testing.assert_array_equal(read("masks/scene.tif"), read("masks/whole.tif"))


def test_finished_scenes_are_skipped_and_the_others_made(
    cvmh, make_scene, tiny_bundle, visible, tmp_path
):
    scenes = [make_scene(f"{stem}.tif", height=40, width=40) for stem in "abc"]
    command = ("predict", *scenes, "-o", "masks", "--checkpoint", tiny_bundle)
    assert cvmh(*command).code == 0
    made = {stem: (tmp_path / "masks" / f"{stem}.tif").stat().st_mtime_ns for stem in "abc"}
    (tmp_path / "masks" / "b.tif").unlink()
    # A scene that is newer than its mask has to be done again.
    later = made["c"] + 10**9
    os.utime(scenes[2], ns=(later, later))
    outcome = cvmh(*command, "--resume")
    assert outcome.code == 3
    lines = outcome.stderr.splitlines()
    assert lines[0] == f"cvmh: {Path('masks') / 'a.tif'} is complete, nothing to do"
    assert "Mpx/s" in lines[1]
    assert lines[2].startswith(f"cvmh: error: {scenes[2]}: mask masks") and "exists" in lines[2]
    assert (tmp_path / "masks" / "a.tif").stat().st_mtime_ns == made["a"]
    assert outcome.stdout.split() == [str(Path("masks") / "a.tif"), str(Path("masks") / "b.tif")]
    assert cvmh(*command, "--resume", "--overwrite").code == 0
    assert (tmp_path / "masks" / "c.tif").stat().st_mtime_ns != made["c"]
    assert visible(tmp_path / "masks") == {"a.tif", "b.tif", "c.tif"}
    assert not list(tmp_path.glob("masks/.*"))


def test_a_mask_of_other_settings_is_not_taken_for_finished(cvmh, make_scene, tiny_bundle):
    make_scene(height=40, width=40)
    command = ("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle)
    assert cvmh(*command).code == 0
    before = Path("m.tif").read_bytes()
    outcome = cvmh(*command, "--resume", "--overlap", "0.5")
    assert outcome.code == 1
    assert outcome.stderr == (
        "cvmh: error: mask m.tif exists and was made with other settings; choose another name "
        "or add --overwrite\n"
    )
    assert Path("m.tif").read_bytes() == before
    # What changes only how the mask is made is no other setting.
    for options in (("--batch", "3"), ("--max-memory", "8G"), ("--progress", "off")):
        outcome = cvmh(*command, "--resume", *options)
        assert (outcome.code, "is complete" in outcome.stderr) == (0, True)


def test_a_scene_whose_other_output_is_missing_is_made_again(cvmh, make_scene, tiny_bundle):
    make_scene(height=40, width=40)
    command = ("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle, "--resume")
    assert cvmh(*command).code == 0
    outcome = cvmh(*command, "--confidence", "c.tif")
    assert outcome.code == 0 and "Mpx/s" in outcome.stderr
    assert Path("c.tif").exists()


def test_a_dry_run_of_several_scenes_needs_no_folder_and_makes_none(
    cvmh, make_scene, tiny_bundle, visible
):
    scenes = [make_scene(f"{stem}.tif", height=40, width=40) for stem in "ab"]
    outcome = cvmh(
        *("predict", *scenes, "-o", "masks/deep", "--checkpoint", tiny_bundle, "--dry-run"),
        *("--json", "--preview", "pictures/{stem}.png", "--scores", "scores/{stem}.tif"),
    )
    assert outcome.code == 0, outcome.stderr
    plans = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [plan["scene"] for plan in plans] == list(map(str, scenes))
    assert visible() == {"a.tif", "b.tif"}


def test_scenes_in_a_read_only_folder_and_masks_elsewhere(cvmh, make_scene, tiny_bundle, tmp_path):
    shutil.copy(make_scene("in/a.tif", height=40, width=40), tmp_path / "in" / "b.tif")
    (tmp_path / "in").chmod(0o555)
    try:
        outcome = cvmh("predict", "in/*.tif", "-o", "masks", "--checkpoint", tiny_bundle)
    finally:
        (tmp_path / "in").chmod(0o755)
    assert outcome.code == 0, outcome.stderr
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"a.tif", "b.tif"}
