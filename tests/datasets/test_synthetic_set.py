import numpy as np
import pytest
import rasterio

from cvmh.classes import ISPRS
from cvmh.datasets import open_folder, summarise
from cvmh.datasets.synthetic import make_scene, scene_origin
from cvmh.datasets.synthetic_set import write_scene, write_synthetic
from cvmh.errors import OutputError

SIZE = {"height": 64, "width": 80, "gsd": 0.5}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "deep" / "set"
    write_synthetic(folder, num_scenes=3, seed=7, **SIZE)
    return folder


def contents_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_set_is_one_that_open_folder_reads(root):
    data = open_folder(root)
    assert data.classes == ISPRS
    assert [(image.stem, image.split) for image in data.images] == [
        ("scene_0007", "train"),
        ("scene_0008", "train"),
        ("scene_0009", "val"),
    ]
    summary = summarise(data, "train")
    assert (summary.bands, summary.alpha, summary.dtype) == ((1, 2, 3), None, "uint8")
    assert summary.band_names == ("red", "green", "blue")
    assert summary.gsd == pytest.approx(0.5, rel=2e-3)


@pytest.mark.parametrize(("num_scenes", "num_val"), [(2, 1), (5, 1), (10, 2)])
def test_the_last_fifth_is_for_validation(tmp_path, num_scenes, num_val):
    write_synthetic(tmp_path / "set", num_scenes=num_scenes, height=32, width=32)
    splits = [image.split for image in open_folder(tmp_path / "set").images]
    assert splits == ["train"] * (num_scenes - num_val) + ["val"] * num_val


def test_image_and_label_are_those_of_the_scene_on_its_place(root):
    scene = make_scene(8, **SIZE)
    easting, northing = scene_origin(8)
    for part, expected, nodata in [("images", scene.image, 0), ("masks", scene.labels[None], 255)]:
        with rasterio.open(root / part / "scene_0008.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(), expected)
            assert dataset.crs.to_epsg() == 32632
            assert dataset.transform.to_gdal() == (easting, 0.5, 0, northing, 0, -0.5)
            assert set(dataset.nodatavals) == {nodata}


def test_labels_carry_the_colours_of_the_classes(root):
    with rasterio.open(root / "masks" / "scene_0007.tif") as dataset:
        colours = dataset.colormap(1)
    assert [colours[entry.id][:3] for entry in ISPRS] == ISPRS.colours


def test_scenes_do_not_overlap(root):
    boxes = []
    for path in sorted((root / "images").iterdir()):
        with rasterio.open(path) as dataset:
            boxes.append(dataset.bounds)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert rasterio.coords.disjoint_bounds(one, other)


def test_the_same_seed_gives_the_same_bytes(root, tmp_path):
    write_synthetic(tmp_path / "again", num_scenes=3, seed=7, **SIZE)
    assert contents_of(tmp_path / "again") == contents_of(root)
    write_synthetic(tmp_path / "other", num_scenes=3, seed=17, **SIZE)
    images = [contents_of(folder / "images") for folder in (root, tmp_path / "other")]
    assert not set(images[0].values()) & set(images[1].values())


def test_one_scene_alone_is_the_same_as_in_a_set(root, tmp_path):
    write_scene(8, tmp_path / "image.tif", tmp_path / "label.tif", **SIZE)
    for name, part in [("image.tif", "images"), ("label.tif", "masks")]:
        assert (tmp_path / name).read_bytes() == (root / part / "scene_0008.tif").read_bytes()


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty; choose a new folder") as caught:
        write_synthetic(tmp_path / "set", **SIZE)
    assert str(tmp_path / "set") in str(caught.value)
    assert contents_of(tmp_path / "set") == {"mine.txt": b"mine"}
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "set").mkdir()
    write_synthetic(tmp_path / "set", num_scenes=2, height=32, width=32)
    assert len(open_folder(tmp_path / "set").images) == 2


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("a file")
    for folder in (tmp_path / "set", tmp_path / "set" / "below"):
        with pytest.raises(OutputError):
            write_synthetic(folder, **SIZE)
    assert (tmp_path / "set").read_text() == "a file"


def test_an_interrupted_run_leaves_no_data_set(tmp_path):
    def interrupt(stage, done, total, unit):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", num_scenes=3, progress=interrupt, **SIZE)
    assert not (tmp_path / "set" / "split.csv").exists()


def test_the_progress_counts_scenes(tmp_path):
    calls = []
    write_synthetic(
        tmp_path / "set",
        num_scenes=2,
        height=32,
        width=32,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("scenes", 1, 2, "scenes"), ("scenes", 2, 2, "scenes")]
