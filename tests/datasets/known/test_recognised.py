"""Every known data set in every layout: it is recognised, and its labels say what was drawn."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cvmh.datasets import KNOWN, open_known
from cvmh.datasets.reading import check_label, read_label
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

EVERY = [(known.name, layout.name) for known in KNOWN.values() for layout in known.layouts]


@pytest.fixture
def opened(fake_set, fake_sets):
    """Return a function that opens a fake as far as it goes."""

    def open_(name, layout, root=None, **options):
        partial = not fake_sets.FAKES[name, layout].complete
        options = {"partial": partial, **options}
        return open_known(KNOWN[name], root or fake_set(name, layout), **options)

    return open_


def test_every_layout_has_a_fake(fake_sets):
    assert set(fake_sets.FAKES) == set(EVERY)


@pytest.mark.parametrize(("name", "layout"), EVERY)
def test_a_layout_is_recognised_by_looking(opened, name, layout):
    data = opened(name, layout)
    assert (data.name, data.layout, data.classes) == (name, layout, KNOWN[name].classes)
    assert data.splits == KNOWN[name].layout(layout).splits[0]
    assert data.of_split("train") and data.of_split("val")
    stems = [image.stem for image in data.images]
    assert len(set(stems)) == len(stems)


@pytest.mark.parametrize(("name", "layout"), EVERY)
def test_the_labels_decode_to_what_was_drawn(opened, fakes, name, layout):
    data = opened(name, layout)
    root, drawn = fakes(name, layout)
    seen = set()
    for image in data.images:
        for path in {image.label, image.eroded} - {None}:
            with Raster(image.image) as raster, Raster(path) as label:
                check_label(label, raster, data.encoding)
                ids = read_label(label, data.encoding, Window(0, 0, raster.height, raster.width))
                assert raster.num_bands == len(data.band_names)
            wanted = drawn[path.relative_to(root).as_posix()]
            np.testing.assert_array_equal(ids, wanted)
            seen |= set(np.unique(ids).tolist())
    assert seen - {255} == set(range(len(data.classes)))


@pytest.mark.parametrize(
    ("name", "layout", "counts"),
    [
        ("potsdam", "isprs-rgb", {"train": 21, "val": 3, "test": 14}),
        ("potsdam", "torchgeo", {"train": 21, "val": 3, "test": 14}),
        ("potsdam", "ssrs", {"train": 15, "val": 3, "test": 6}),
        ("potsdam", "geoseg", {"train": 22, "val": 1, "test": 14}),
        ("vaihingen", "torchgeo", {"train": 12, "val": 4, "test": 17}),
        ("vaihingen", "ssrs", {"train": 10, "val": 2, "test": 4}),
        ("vaihingen", "geoseg", {"train": 15, "val": 1, "test": 17}),
        ("uavid", "official", {"train": 4, "val": 2}),
        ("landcoverai", "torchgeo", {"train": 2, "val": 1, "test": 1}),
        ("gid15", "torchgeo", {"train": 2, "val": 1}),
        ("openearthmap", "official", {"train": 3, "val": 2}),
    ],
)
def test_the_images_are_in_their_splits(opened, name, layout, counts):
    assert Counter(image.split for image in opened(name, layout).images) == counts


@pytest.mark.parametrize("splits", ["official", "cvmh-paper", "geoseg", "mmseg", "ssrs"])
@pytest.mark.parametrize("name", ["potsdam", "vaihingen"])
def test_the_published_split_can_be_chosen(opened, name, splits):
    layout = {"potsdam": "isprs-rgb", "vaihingen": "torchgeo"}[name]
    data = opened(name, layout, splits=splits)
    tiles = KNOWN[name].splits[splits].tiles
    for split, names in tiles.items():
        assert sorted(image.stem for image in data.of_split(split)) == sorted(names)
    assert (data.splits, len(data.images)) == (splits, sum(map(len, tiles.values())))


def test_the_tiles_of_a_scene_go_where_the_scene_goes(opened):
    data = opened("potsdam", "mmseg", splits="cvmh-paper")
    scenes = {split: set() for split in ("train", "val", "test")}
    for image in data.images:
        scenes[image.split].add("_".join(image.stem.split("_")[:2]))
    assert {split: len(names) for split, names in scenes.items()} == {
        "train": 20,
        "val": 3,
        "test": 14,
    }
    # 2_10 has two tiles, and is held out.
    assert len(data.of_split("val")) == 4


def test_tiles_that_are_the_same_flipped_are_left_out(opened):
    stems = [image.stem for image in opened("potsdam", "geoseg-tiles").of_split("train")]
    assert len(stems) == 22 and all(stem.endswith("_0_0") for stem in stems)


def test_eroded_labels_are_found_beside_full_ones(opened):
    data = opened("vaihingen", "ssrs")
    assert data.label_set == "full"
    for image in data.images:
        assert image.has_full_label
        assert image.eroded.name == f"top_mosaic_09cm_area{image.stem}_noBoundary.tif"
    eroded = opened("vaihingen", "ssrs", labels="eroded")
    assert eroded.label_set == "eroded"
    assert all(image.label == image.eroded for image in eroded.images)


def test_where_there_are_only_eroded_labels_the_data_set_says_so(opened):
    data = opened("vaihingen", "mmseg")
    assert data.label_set == "eroded"
    assert not any(image.has_full_label for image in data.images)
    # GeoSeg cuts full labels to train on and eroded ones to test on.
    tiles = opened("potsdam", "geoseg-tiles")
    assert tiles.label_set == "full"
    assert all(image.has_full_label for image in tiles.of_split("train"))
    assert not any(image.has_full_label for image in tiles.of_split("test"))


def test_the_labels_for_participants_count_more_than_all_labels(fakes, fake_sets, tmp_path):
    # Among all labels of Potsdam that of 4_12 is damaged.
    fake_sets.write_fake(tmp_path, "potsdam", "torchgeo")
    good = tmp_path / "5_Labels_for_participants" / "top_potsdam_4_12_label.tif"
    good.parent.mkdir()
    (tmp_path / good.name).rename(good)
    data = open_known(KNOWN["potsdam"], tmp_path)
    labels = {image.stem: image.label for image in data.images}
    assert labels["4_12"] == good
    assert labels["4_11"] == tmp_path / "top_potsdam_4_11_label.tif"


def test_one_folder_above_or_below_the_right_one_is_good_too(opened, fake_set):
    right = fake_set("potsdam", "geoseg")
    for root in (right, right.parent, right / "train_images"):
        data = opened("potsdam", "geoseg", root=root)
        assert (data.root.resolve(), len(data.images)) == (right, 37)
    gid = fake_set("gid15", "torchgeo")
    for root in (gid, gid / "GID", gid / "GID" / "img_dir"):
        assert opened("gid15", "torchgeo", root=root).root.resolve() == gid / "GID"


def test_of_two_layouts_in_one_folder_the_first_complete_one_counts(fake_sets, tmp_path):
    fake_sets.write_fake(tmp_path, "potsdam", "geoseg-tiles")
    assert open_known(KNOWN["potsdam"], tmp_path).layout == "geoseg-tiles"
    fake_sets.write_fake(tmp_path, "potsdam", "geoseg")
    assert open_known(KNOWN["potsdam"], tmp_path).layout == "geoseg"
    named = open_known(KNOWN["potsdam"], tmp_path, layout="geoseg-tiles")
    assert named.layout == "geoseg-tiles"
    (tmp_path / "test_masks" / "top_potsdam_2_13_label.tif").unlink()
    (tmp_path / "test_masks_eroded" / "top_potsdam_2_13_label_noBoundary.tif").unlink()
    assert open_known(KNOWN["potsdam"], tmp_path).layout == "geoseg-tiles"


def test_a_tile_may_be_written_with_leading_zeros(fake_sets, tmp_path):
    fake_sets.write_fake(tmp_path, "potsdam", "isprs-rgb")
    for path in list(tmp_path.rglob("top_potsdam_6_7_*")):
        path.rename(path.with_name(path.name.replace("6_7", "06_07")))
    assert len(open_known(KNOWN["potsdam"], tmp_path).images) == 38


def test_the_folder_may_be_named_from_where_one_is(fake_set, monkeypatch):
    root = fake_set("vaihingen", "torchgeo")
    for place, name in ((root, "."), (root.parent, root.name), (root / "top", "..")):
        monkeypatch.chdir(place)
        assert len(open_known(KNOWN["vaihingen"], Path(name)).images) == 33
