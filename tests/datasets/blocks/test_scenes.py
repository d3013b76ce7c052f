"""One large scene with one label: blocks of it as VRT files, and a split of these."""

import csv
import json

import numpy as np
import pytest
import rasterio

from cvmh.classes import ISPRS
from cvmh.datasets.blocks import open_unsplit, plan_split, write_split
from cvmh.datasets.doctor import examine
from cvmh.datasets.doctor.survey import survey
from cvmh.datasets.folder import open_folder
from cvmh.datasets.synthetic_set import write_scene
from cvmh.errors import ConfigError, DataError, OutputError
from cvmh.geo.raster import Raster

GSD = 0.5


@pytest.fixture(scope="session")
def one_scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("scene")
    for part in ("images", "masks"):
        (root / part).mkdir()
    image, label = root / "images" / "town.tif", root / "masks" / "town.tif"
    write_scene(3, image, label, height=700, width=900, gsd=GSD)
    (root / "classes.json").write_text(json.dumps(ISPRS.to_json()))
    return root


@pytest.fixture
def scene(one_scene, tmp_path):
    """Return a folder with one scene of 700 x 900 pixels at 0.5 m."""
    for path in sorted(one_scene.rglob("*.*")):
        target = tmp_path / "set" / path.relative_to(one_scene)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "set"


def split(root, **options):
    overwrite = options.pop("overwrite", False)
    plan = plan_split(survey(open_unsplit(root)), **options)
    write_split(root, plan, overwrite=overwrite)
    with (root / "split.csv").open() as stream:
        return {row["stem"]: row["split"] for row in csv.DictReader(stream)}


def extent(path):
    """Return rows and columns of a block on its scene, by its georeference."""
    with rasterio.open(path) as block, rasterio.open(path.with_name("town.tif")) as whole:
        row, column = whole.index(block.bounds.left + 0.1, block.bounds.top - 0.1)
        return row, column, row + block.height, column + block.width


def test_blocks_of_different_splits_are_as_far_apart_as_asked(scene):
    splits = split(scene, block=100, gap=20, val=0.25)
    assert splits.pop("town") == "unused"
    assert {"train", "val"} <= set(splits.values()) and len(splits) == 3 * 4
    used = [stem for stem in splits if splits[stem] != "unused"]
    boxes = {stem: extent(scene / "images" / f"{stem}.vrt") for stem in used}
    for one in used:
        for other in used:
            if splits[one] < splits[other]:
                a, b = boxes[one], boxes[other]
                rows, columns = max(a[0] - b[2], b[0] - a[2]), max(a[1] - b[3], b[1] - a[3])
                # 20 m are 40 pixels.
                assert max(rows, columns) >= 40
            elif one != other:
                a, b = boxes[one], boxes[other]
                assert max(a[0] - b[2], b[0] - a[2]) >= 0 or max(a[1] - b[3], b[1] - a[3]) >= 0


def test_shares_count_what_is_left_of_the_blocks(scene):
    plan = plan_split(survey(open_unsplit(scene)), block=70, gap=10, val=0.3)
    pixels = {split: plan.class_pixels(split).sum() for split in ("train", "val")}
    assert pixels["val"] / sum(pixels.values()) == pytest.approx(0.3, abs=0.05)


def test_blocks_show_what_their_scene_does(scene):
    splits = split(scene, block=100, gap=10)
    data = open_folder(scene)
    assert len(data.images) == len(splits)
    for entry in data.images:
        if entry.stem == "town":
            continue
        top, left, bottom, right = extent(entry.image)
        for path in (entry.image, entry.label):
            with Raster(path) as block, Raster(path.with_name("town.tif")) as whole:
                assert block.nodata == whole.nodata and block.crs == whole.crs
                assert block.band_names == whole.band_names
                assert block.gsd == pytest.approx(GSD, rel=1e-3)
                expected = whole.read()[:, top:bottom, left:right]
                assert np.array_equal(block.read(), expected)


def test_the_doctor_finds_no_leak_in_such_a_split(scene):
    split(scene, block=100, gap=20, val=0.25)
    diagnosis = examine("folder", scene)
    kinds = {"overlapping-splits", "touching-splits", "shared-pixels", "strange-split"}
    assert not kinds & {finding.code for finding in diagnosis.findings}
    assert all(facts.entry.stem != "town" for facts in diagnosis.examination.images)


def test_the_folder_can_be_moved(scene, tmp_path):
    split(scene, block=100, gap=10)
    moved = scene.rename(tmp_path / "elsewhere")
    for entry in open_folder(moved).images:
        with Raster(entry.image) as block:
            assert block.read().any()


def test_a_second_split_removes_the_blocks_of_the_first(scene):
    split(scene, block=100, gap=10)
    with pytest.raises(OutputError, match=r"split\.csv exists; give --overwrite"):
        split(scene, block=200, gap=10)
    splits = split(scene, block=200, gap=10, overwrite=True)
    names = {path.stem for path in (scene / "images").iterdir()}
    assert names == set(splits)


def test_without_a_georeference_lengths_are_pixels(scene, write):
    for path in (scene / "images" / "town.tif", scene / "masks" / "town.tif"):
        with rasterio.open(path) as dataset:
            array = dataset.read()
        write(path, array)
    splits = split(scene, block=200, gap=30)
    assert len(splits) == 1 + 4 * 4
    assert len(set(splits.values())) == 3


def test_the_gap_is_a_tile_where_nothing_is_said(scene):
    with pytest.raises(ConfigError, match=r"at least 4 times as large as the gap .* 127\.9"):
        split(scene, block=200)


def test_a_scene_alone_is_refused_without_blocks(scene):
    with pytest.raises(DataError, match="give --block with the side of blocks in metres"):
        split(scene)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path, scene):
    with pytest.raises(DataError, match="does not exist"):
        open_unsplit(tmp_path / "nowhere")
    (scene / "masks" / "town.tif").unlink()
    with pytest.raises(DataError, match="1 image without a label of the same name"):
        open_unsplit(scene)


def test_a_new_split_of_a_prepared_set_keeps_which_labels_are_eroded(scene):
    (scene / "split.csv").write_text("stem,split,labels\ntown,train,eroded\n")
    about = {"name": "potsdam", "gsd": 0.5, "splits": "official", "source": "x"}
    (scene / "about.json").write_text(json.dumps(about))
    split(scene, block=100, gap=20, overwrite=True)
    data = open_folder(scene)
    assert not any(image.has_full_label for image in data.images)
    assert (data.name, data.gsd, data.splits) == ("potsdam", 0.5, "own")


def test_a_split_table_that_cannot_be_read_may_be_replaced(scene):
    (scene / "split.csv").write_text("stem;split\ntown;train\n")
    split(scene, block=100, gap=20, overwrite=True)
    assert all(image.has_full_label for image in open_folder(scene).images)
