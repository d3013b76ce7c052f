"""``cvmh data split``: what it prints and writes."""

import csv

import pytest
import rasterio

from cvmh.datasets.synthetic_set import write_synthetic
from cvmh.geo.raster import write_raster


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_synthetic(root, num_scenes=6, seed=6, height=96, width=96, gsd=0.25)
    return root


@pytest.fixture
def data(scenes, tmp_path):
    """Return a copy of a set without split.csv."""
    for path in sorted(scenes.rglob("*.*")):
        target = tmp_path / "tiles" / path.relative_to(scenes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "tiles" / "split.csv").unlink()
    return tmp_path / "tiles"


def read(root):
    with (root / "split.csv").open() as stream:
        return [(row["stem"], row["split"]) for row in csv.DictReader(stream)]


def test_the_split_is_written_and_told(cvmh, data):
    outcome = cvmh("data", "split", data, "--val", "0.3")
    assert (outcome.code, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines[0].startswith("train ") and "images, " in lines[0] and "of the labels" in lines[0]
    assert lines[-1] == str(data / "split.csv")
    rows = read(data)
    assert [stem for stem, _ in rows] == [f"scene_{n:04d}" for n in range(6, 12)]
    assert {split for _, split in rows} == {"train", "val"}


def test_an_existing_split_is_replaced_only_when_asked(cvmh, data):
    (data / "split.csv").write_text("mine")
    outcome = cvmh("data", "split", data)
    assert outcome.code == 1 and "give --overwrite to replace it" in outcome.stderr
    assert (data / "split.csv").read_text() == "mine"
    assert cvmh("data", "split", data, "--overwrite", "--test", "0.2").code == 0
    assert {split for _, split in read(data)} == {"train", "val", "test"}


def test_images_without_georeference_are_split_with_a_warning(cvmh, data, write_plain):
    write_plain(data)
    outcome = cvmh("data", "split", data)
    assert outcome.code == 0
    assert "no georeference, so neighbours cannot be known" in outcome.stderr


def test_what_cannot_be_split_is_one_sentence_and_leaves_nothing(cvmh, data):
    outcome = cvmh("data", "split", data, "--gap", "1e7")
    assert outcome.code == 1 and "form 1 group that cannot be parted" in outcome.stderr
    assert not (data / "split.csv").exists()


def test_a_scene_is_cut_into_blocks(cvmh, data):
    outcome = cvmh("data", "split", data, "--block", "8", "--gap", "1")
    assert outcome.code == 0 and "blocks, " in outcome.stdout
    rows = dict(read(data))
    assert rows["scene_0006"] == "unused" and len(rows) == 6 + 6 * 9


@pytest.fixture
def write_plain():
    """Return a function that takes the georeference from the images of a set."""

    def write_plain(root):
        for path in sorted(root.glob("*/*.tif")):
            with rasterio.open(path) as dataset:
                array, nodata = dataset.read(), dataset.nodata
            write_raster(path, array, nodata=nodata)

    return write_plain
