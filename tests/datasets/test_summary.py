from dataclasses import replace

import numpy as np
import pytest

from cvmh.datasets import DataSummary, open_folder, summarise
from cvmh.datasets.class_index import ClassIndex
from cvmh.datasets.labelled import LabelEncoding
from cvmh.datasets.moments import Moments
from cvmh.datasets.summary import PROBE, fingerprint, survey
from cvmh.errors import CvmhError, DataError

UTM = {"crs": "EPSG:32632", "transform": [0.5, 0, 500_000, 0, -0.5, 5_400_000]}


def message_of(action, kind=DataError):
    with pytest.raises(CvmhError) as caught:
        action()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def entries(draw):
    """Two images of different sizes to train on, one to validate on."""
    return {
        "a": ("train", *draw(0)),
        "b": ("train", *draw(1, height=33, width=70)),
        "c": ("val", *draw(2, height=20, width=20)),
    }


@pytest.fixture
def forbid_pixels(monkeypatch):
    """Return a function after whose call no pixel may be read."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("pixels were read")

        monkeypatch.setattr("cvmh.geo.raster.Raster.read", fail)

    return forbid


def assert_statistics(summary, samples):
    """Compare with numpy over the samples of each band, all in float64."""
    mean = [band.astype(np.float64).mean() for band in samples]
    std = [band.astype(np.float64).std() for band in samples]
    np.testing.assert_allclose(summary.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(summary.std, std, rtol=1e-10)


def joined(entries, split="train"):
    """Return the samples (bands, pixels) and labels of a split."""
    chosen = [(image, label) for where, image, label in entries.values() if where == split]
    samples = np.concatenate([image.reshape(len(image), -1) for image, _ in chosen], axis=1)
    return samples, np.concatenate([label.ravel() for _, label in chosen])


def test_the_statistics_are_those_of_numpy(make_folder, entries):
    data = open_folder(make_folder(entries))
    for split in ("train", "val"):
        summary = summarise(data, split)
        samples, labels = joined(entries, split)
        assert_statistics(summary, samples)
        assert summary.class_pixels == tuple(np.bincount(labels, minlength=3))
    assert (summary.bands, summary.alpha, summary.dtype) == ((1, 2, 3), None, "uint8")
    assert summary.band_names == ("red", "green", "blue")


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_statistics_do_not_depend_on_how_many_rows_are_read_at_once(
    make_folder, entries, monkeypatch, rows
):
    monkeypatch.setattr("cvmh.datasets.summary.PIXELS_AT_ONCE", rows * 50)
    summary = summarise(open_folder(make_folder(entries)), "train")
    samples, labels = joined(entries)
    assert_statistics(summary, samples)
    assert summary.class_pixels == tuple(np.bincount(labels, minlength=3))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_large_numbers_that_hardly_differ_keep_their_deviation(make_folder, draw, dtype):
    image, label = draw(0, bands=4, dtype="float32")
    offset = 60_000 if dtype == "uint16" else 1e6
    image = (image + offset).astype(dtype)
    root = make_folder({"a": ("train", image, label)}, photometric="MINISBLACK")
    summary = summarise(open_folder(root), "train")
    assert summary.dtype == dtype
    assert_statistics(summary, image.reshape(4, -1))


def test_nodata_does_not_count(make_folder, entries):
    for _, image, label in entries.values():
        image[:, label == 2] = 0
    data = open_folder(make_folder(entries, nodata=0))
    samples, labels = joined(entries)
    summary = summarise(data, "train")
    assert_statistics(summary, samples[:, labels != 2])


def test_a_missing_sample_does_not_count_though_its_pixel_does(make_folder, draw):
    image, label = draw(0, bands=2, dtype="float32")
    image[1, label == 1] = -9999
    image[:, 0] = np.nan
    summary = summarise(
        open_folder(make_folder({"a": ("train", image, label)}, nodata=-9999)), "train"
    )
    measured = ~np.isnan(image) & (image != -9999)
    assert measured[0].sum() != measured[1].sum()
    assert_statistics(summary, [band[found] for band, found in zip(image, measured, strict=True)])


def test_labels_that_do_not_count_are_not_counted(make_folder, entries):
    for _, _, label in entries.values():
        label[:5] = 255
    summary = summarise(open_folder(make_folder(entries)), "train")
    labels = joined(entries)[1]
    assert summary.class_pixels == tuple(np.bincount(labels[labels != 255], minlength=3))


def test_a_constant_band_has_a_deviation_that_can_be_divided_by(make_folder, entries):
    for _, image, _ in entries.values():
        image[1] = 77
    summary = summarise(open_folder(make_folder(entries)), "train")
    assert (summary.mean[1], summary.std[1]) == (77.0, 1.0)


def test_bands_are_chosen_and_ordered_by_the_user(make_folder, entries):
    data = open_folder(make_folder(entries))
    summary = summarise(data, "train", bands=(3, 1))
    assert_statistics(summary, joined(entries)[0][[2, 0]])
    assert (summary.bands, summary.band_names) == ((3, 1), ("blue", "red"))
    # Kept apart from those of all bands.
    assert summarise(data, "train").bands == (1, 2, 3)


def test_the_ground_sampling_distance_is_in_metres(make_folder, entries):
    summary = summarise(open_folder(make_folder(entries, **UTM)), "train")
    assert summary.gsd == pytest.approx(0.5, rel=1e-3)
    assert summarise(open_folder(make_folder(entries, name="bare")), "train").gsd is None


def test_what_the_data_set_declares_counts_more_than_the_files(make_folder, entries):
    data = open_folder(make_folder(entries, **UTM))
    declared = replace(data, band_names=("nir", "red", "green"), gsd=0.09)
    assert summarise(declared, "train").gsd == 0.09
    assert summarise(declared, "train").band_names == ("nir", "red", "green")
    assert summarise(declared, "train", bands=[3, 1]).band_names == ("green", "nir")
    # The files have more bands than the set declares: what they say is all there is.
    names = summarise(replace(data, band_names=("nir", "red")), "train").band_names
    assert names == summarise(data, "train").band_names


def test_without_a_valid_pixel_there_is_an_error(make_folder, draw):
    image, label = draw(0)
    root = make_folder({"a": ("train", np.zeros_like(image), label)}, nodata=0)
    message = message_of(lambda: summarise(open_folder(root), "train"))
    assert message == f"no image in {root / 'images'} has a valid pixel; check their nodata values"


def test_a_label_of_another_size_is_refused(make_folder, draw):
    root = make_folder({"a": ("train", draw(0)[0], draw(0, height=39)[1])})
    message = message_of(lambda: summarise(open_folder(root), "train"))
    assert f"label {root / 'masks' / 'a.tif'} must be one band of 40 x 50" in message


def test_an_unknown_id_is_named_with_its_row_in_the_raster(make_folder, draw, monkeypatch):
    monkeypatch.setattr("cvmh.datasets.summary.PIXELS_AT_ONCE", 350)
    image, label = draw(0)
    label[31, 17] = 99
    root = make_folder({"a": ("train", image, label)})
    message = message_of(lambda: summarise(open_folder(root), "train"))
    assert "class id 99 at row 31, column 17" in message


# The cache.


def test_a_second_call_reads_no_pixel(make_folder, entries, cache, forbid_pixels):
    data = open_folder(make_folder(entries))
    first = summarise(data, "train")
    (stored,) = cache.glob("*.json")
    assert DataSummary.model_validate_json(stored.read_text()) == first
    forbid_pixels()
    assert summarise(data, "train") == first
    with pytest.raises(AssertionError, match="pixels were read"):
        summarise(data, "val")


def test_a_moved_data_set_is_known_by_its_files(make_folder, entries, forbid_pixels):
    root = make_folder(entries)
    first = summarise(open_folder(root), "train")
    forbid_pixels()
    assert summarise(open_folder(root.rename(root.with_name("moved"))), "train") == first


@pytest.mark.parametrize("part", [1, 2], ids=["image", "label"])
def test_changed_data_are_read_again(make_folder, entries, part):
    before = summarise(open_folder(make_folder(entries)), "train")
    entries["b"][part][..., 0, 0] = 2
    after = summarise(open_folder(make_folder(entries, name="changed")), "train")
    assert after.fingerprint != before.fingerprint
    samples, labels = joined(entries)
    assert_statistics(after, samples)
    assert after.class_pixels == tuple(np.bincount(labels, minlength=3))


def test_other_classes_are_other_data(make_folder, entries, classes):
    data = open_folder(make_folder(entries))
    images = data.of_split("train")
    fewer = replace(data, classes=type(classes)(classes.classes[:2]))
    mapped = replace(data, encoding=LabelEncoding(num_classes=3, values={0: 255, 1: 0, 2: 1}))
    marks = [fingerprint(images, of) for of in (data, fewer, mapped)]
    assert len({*marks, fingerprint(images[::-1], data)}) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bands": [1]}', "\x00"])
def test_a_damaged_cache_is_replaced(make_folder, entries, cache, content):
    data = open_folder(make_folder(entries))
    first = summarise(data, "train")
    (stored,) = cache.glob("*.json")
    good = stored.read_text()
    stored.write_text(content)
    assert summarise(data, "train") == first
    assert stored.read_text() == good


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"\x93NUMPY", b"half"])
def test_a_damaged_index_is_replaced(make_folder, entries, cache, content):
    data = open_folder(make_folder(entries))
    first = survey(data, "train")
    (stored,) = cache.glob("*.npz")
    good = stored.read_bytes()
    if content is None:
        stored.unlink()
    else:
        stored.write_bytes(good[: len(good) // 2] if content == b"half" else content)
    again = survey(data, "train")
    assert again.summary == first.summary
    np.testing.assert_array_equal(again.index.counts, first.index.counts)
    assert ClassIndex.from_bytes(stored.read_bytes()).num_classes == 3


def test_a_label_that_was_changed_in_its_middle_is_read_again(make_folder, entries):
    image, label = np.zeros((1, 600, 600), np.uint8), np.zeros((600, 600), np.uint8)
    root = make_folder({"a": ("train", image, label)})
    data = open_folder(root)
    before = summarise(data, "train")
    path = root / "masks" / "a.tif"
    content = bytearray(path.read_bytes())
    assert len(content) > 3 * PROBE
    content[len(content) // 2] = 77
    path.write_bytes(content)
    assert before.fingerprint == fingerprint(data.of_split("train"), data)
    assert "class id 77" in message_of(lambda: summarise(data, "train"))


def test_labels_where_the_image_has_no_data_are_not_counted(make_folder, entries):
    for _, image, label in entries.values():
        image[:, label == 2] = 0
    summary = summarise(open_folder(make_folder(entries, nodata=0)), "train")
    labels = joined(entries)[1]
    assert summary.class_pixels == (*np.bincount(labels)[:2], 0)


def test_a_cache_that_cannot_be_written_is_done_without(make_folder, entries, cache):
    cache.write_text("a file in the place of the folder")
    calls = []
    summary = summarise(
        open_folder(make_folder(entries)), "train", progress=lambda *call: calls.append(call)
    )
    assert_statistics(summary, joined(entries)[0])
    assert [call[0] for call in calls] == ["statistics", "statistics", "statistics not stored"]


def test_the_progress_counts_images(make_folder, entries):
    calls = []
    data = open_folder(make_folder(entries))
    summarise(data, "train", progress=lambda *call: calls.append(call))
    assert calls == [("statistics", 1, 2, "images"), ("statistics", 2, 2, "images")]


def test_moments_of_parts_of_very_different_sizes_are_those_of_the_whole():
    generator = np.random.default_rng(0)
    parts = [generator.normal(3, 2, (2, 1, size)) for size in (1, 5000, 3, 700)]
    moments = Moments(2)
    for part in parts:
        moments.add(part)
    mean, std = moments.result(None)
    whole = np.concatenate(parts, axis=2)
    np.testing.assert_allclose(mean, whole.mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, whole.std(axis=(1, 2)), rtol=1e-12)
