"""Data sets as tiled copies: what is kept, and when they are worth it."""

import dataclasses
import json

import numpy as np
import pytest
import rasterio

from cvmh.datasets import KNOWN, open_folder, open_known, summarise
from cvmh.datasets import prepare as preparation
from cvmh.datasets.prepare import Gain, estimate_gain, prepare
from cvmh.errors import ConfigError, DataError, OutputError

STRIPS = {"blockysize": 1, "compress": "lzw"}
TILED = {"tiled": True, "compress": "deflate"}


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.fixture
def potsdam(fake_set):
    return open_known(KNOWN["potsdam"], fake_set("potsdam", "ssrs"))


@pytest.fixture
def prepared(potsdam, tmp_path):
    prepare(potsdam, tmp_path / "out", anyway=True)
    return tmp_path / "out"


def test_pixels_labels_and_splits_are_kept(potsdam, prepared, fakes):
    data = open_folder(prepared)
    assert (data.name, data.gsd, data.splits) == ("potsdam", 0.05, "ssrs")
    assert data.classes == potsdam.classes and len(data.images) == 24
    root, drawn = fakes("potsdam", "ssrs")
    for old, new in zip(potsdam.images, data.images, strict=True):
        assert (old.stem, old.split) == (new.stem, new.split)
        np.testing.assert_array_equal(read(old.image), read(new.image))
        for label, copy in ((old.label, new.label), (old.eroded, new.eroded)):
            ids = drawn[label.relative_to(root).as_posix()]
            np.testing.assert_array_equal(read(copy)[0], ids)


def test_the_copies_are_tiled_packed_and_georeferenced(potsdam, prepared):
    for part in ("images", "masks", "masks_eroded"):
        with (
            rasterio.open(prepared / part / "2_10.tif") as new,
            rasterio.open(next(i.image for i in potsdam.images if i.stem == "2_10")) as old,
        ):
            assert new.profile["tiled"] and new.block_shapes[0] == (256, 256)
            assert new.compression.name == "deflate"
            assert (new.crs, new.transform) == (old.crs, old.transform)
            if part == "images":
                assert new.descriptions == ("red", "green", "blue", "nir")
                assert new.nodata is None
            else:
                assert (new.nodata, new.dtypes) == (255, ("uint8",))
                assert new.colormap(1)[4] == (255, 255, 0, 255)


def test_both_give_the_same_statistics(potsdam, prepared):
    before, after = summarise(potsdam, "train"), summarise(open_folder(prepared), "train")
    assert before.model_dump(exclude={"fingerprint"}) == after.model_dump(exclude={"fingerprint"})


def test_eroded_labels_that_are_the_only_ones_stay_known_as_such(fake_set, tmp_path):
    data = open_known(KNOWN["potsdam"], fake_set("potsdam", "geoseg-tiles"))
    prepare(data, tmp_path / "out", anyway=True)
    copy = open_folder(tmp_path / "out")
    assert copy.label_set == "full" and not (tmp_path / "out" / "masks_eroded").exists()
    assert all(image.has_full_label for image in copy.of_split("train"))
    assert not any(image.has_full_label for image in copy.of_split("test"))


def test_an_interrupted_call_is_continued(potsdam, tmp_path, monkeypatch):
    written = []
    write = preparation.write_tiled

    def count(path, *arguments, **options):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, *arguments, **options)

    monkeypatch.setattr(preparation, "write_tiled", count)
    with pytest.raises(KeyboardInterrupt):
        prepare(potsdam, tmp_path / "out", anyway=True)
    assert not (tmp_path / "out").exists()
    written[:] = [None] * 11
    prepare(potsdam, tmp_path / "out", anyway=True)
    assert len(written) - 11 == 3 * 24 - 10
    assert len(open_folder(tmp_path / "out").images) == 24
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out"]


def test_what_was_begun_from_other_files_is_not_continued(potsdam, tmp_path, monkeypatch):
    def stop(done, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(potsdam, tmp_path / "out", anyway=True, progress=stop)
    first = tmp_path / ".out.unfinished" / "masks" / f"{potsdam.images[0].stem}.tif"
    first.write_bytes(b"from another set")
    other = dataclasses.replace(potsdam, images=potsdam.images[:2])
    prepare(other, tmp_path / "out", anyway=True)
    assert read(tmp_path / "out" / "masks" / first.name).shape == (1, 64, 64)


def test_nothing_is_overwritten(potsdam, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(OutputError, match="out is not empty; choose a new folder"):
        prepare(potsdam, tmp_path / "out", anyway=True)
    (tmp_path / "out" / "mine.txt").unlink()
    prepare(potsdam, tmp_path / "out", anyway=True)
    assert (tmp_path / "out" / "split.csv").exists()


def test_a_wrong_label_leaves_nothing_that_looks_complete(make_folder, draw, tmp_path):
    image, label = draw(1)
    label[3, 4] = 77
    data = open_folder(make_folder({"a": ("train", *draw(0)), "b": ("val", image, label)}))
    with pytest.raises(DataError, match="class id 77 at row 3, column 4"):
        prepare(data, tmp_path / "out", anyway=True)
    assert not (tmp_path / "out").exists()


def test_a_mask_of_an_image_is_not_lost_silently(make_folder, draw, tmp_path):
    image, label = draw(0)
    mask = np.full(label.shape, 255, dtype="uint8")
    mask[:9] = 0
    data = open_folder(make_folder({"a": ("train", image, label)}, mask=mask))
    with pytest.raises(DataError, match="has a mask of its own"):
        prepare(data, tmp_path / "out", anyway=True)


@pytest.mark.parametrize(
    ("suffix", "profile", "label", "pays"),
    [
        # A crop of 512 in strips of one row of 3000 columns: 3000 / 512.
        (".tif", STRIPS, STRIPS, True),
        (".png", {}, {}, True),
        (".tif", {**TILED, "blockxsize": 256, "blockysize": 256}, None, False),
        (".tif", {**TILED, "blockxsize": 512, "blockysize": 512}, None, False),
        # Nothing is to be decoded.
        (".tif", {"blockysize": 1}, None, False),
    ],
)
def test_files_that_cannot_be_read_in_parts_are_worth_it(
    make_folder, tmp_path, suffix, profile, label, pays
):
    image, ids = np.zeros((3, 900, 3000), "uint8"), np.zeros((900, 3000), "uint8")
    label = profile if label is None else label
    options = {"suffix": suffix, "label_suffix": suffix, "label": label, **profile}
    data = open_folder(make_folder({"a": ("train", image, ids)}, **options))
    gain = estimate_gain(data)
    assert gain.pays is pays
    if profile == STRIPS:
        assert gain.now == pytest.approx(3000 / 512)
    if suffix == ".png":
        assert gain.now == pytest.approx((900 + 512) / 2 * 3000 / 512**2)
    assert gain.tiled == pytest.approx((511 / 256 + 1) ** 2 * 256**2 / 512**2)
    if not pays:
        with pytest.raises(ConfigError, match="need not be prepared: a crop of 512 pixels decodes"):
            prepare(data, tmp_path / "out")


def test_small_chips_are_not_worth_it(fake_set):
    loveda = open_known(KNOWN["loveda"], fake_set("loveda", "torchgeo"), partial=True)
    assert not estimate_gain(loveda).pays
    assert Gain(now=6.0, tiled=3.0).factor == 2.0 and Gain(now=6.0, tiled=3.0).pays


def test_what_is_said_about_a_folder_must_be_readable(make_folder, draw):
    root = make_folder({"a": ("train", *draw(0))})
    (root / "about.json").write_text(json.dumps({"gsd": "small"}))
    with pytest.raises(DataError, match=r"about\.json must hold name, gsd, splits and source"):
        open_folder(root)
