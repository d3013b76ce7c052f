import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvmh.classes import NODATA_ID
from cvmh.config import RunConfig
from cvmh.datasets import open_data, open_folder, prepare_training, summarise
from cvmh.datasets.labelled import LabelEncoding
from cvmh.datasets.loading import MIN_BATCHES
from cvmh.errors import ConfigError, DataError
from cvmh.geo.raster import Raster
from cvmh.settings import merge, validate

DATA = os.environ.get("CVMH_TEST_DATA")

# name: (bands, what names them, classes)
REAL = {
    "naip_landcover6": (4, ("red", "green", "blue", "band_4"), 6),
    "oam_buildings": (3, ("red", "green", "blue"), 2),
    "amazon_forest": (3, ("red", "green", "blue"), 2),
    "nb_landcover4": (3, ("red", "green", "blue"), 5),
}


def make_config(root, **settings):
    given = {"root": str(root), "tile": 32, "batch": 2, "workers": 0, "crops_per_epoch": 6}
    return validate(RunConfig, merge({"data": given}, settings), source="here")


def load(root, **settings):
    config = make_config(root, **settings)
    return prepare_training(open_data(config.data), config)


def batches_of(loader, *epochs):
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        found += [(image.clone(), label.clone(), index.clone()) for image, label, index in loader]
    return found


@pytest.fixture
def root(make_folder, draw):
    return make_folder(
        {
            "a": ("train", *draw(0, bands=4)),
            "b": ("train", *draw(1, height=70, bands=4)),
            "c": ("val", *draw(2, height=45, width=40, bands=4)),
        },
        photometric="MINISBLACK",
        alpha="NO",
    )


def test_batches_hold_normalised_images_labels_and_indices(root):
    training = load(root)
    batches = batches_of(training.train_loader, 0)
    assert len(batches) == len(training.train_loader) == 3
    for number, (image, label, index) in enumerate(batches):
        assert (image.shape, image.dtype) == ((2, 4, 32, 32), torch.float32)
        assert (label.shape, label.dtype) == ((2, 32, 32), torch.int64)
        assert index.tolist() == [2 * number, 2 * number + 1]
    tiles = list(training.val_loader)
    assert sum(len(index) for _, _, index in tiles) == 4
    assert sum(int((label != NODATA_ID).sum()) for _, label, _ in tiles) == 45 * 40


def test_images_are_scaled_by_the_training_split_in_both_splits(root):
    training = load(root)
    data = open_folder(root)
    assert training.summary == summarise(data, "train")
    mean = np.array(training.summary.mean)[:, None, None]
    std = np.array(training.summary.std)[:, None, None]
    image, label, _ = training.val_loader.dataset[0]
    with Raster(data.of_split("val")[0].image) as raster:
        expected = (raster.read()[:, :32, :32] - mean) / std
    np.testing.assert_allclose(image.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (label != NODATA_ID).all()


MIXED = {"scale": [0.5, 2], "mosaic": 0.5, "cutmix": 0.5}


@pytest.mark.parametrize(("balance", "augment"), [(0, {}), (0.8, MIXED)], ids=["plain", "mixed"])
def test_batches_do_not_depend_on_the_number_of_workers(root, balance, augment):
    alone = load(root, data={"balance": balance}, augment=augment)
    helped = load(root, data={"balance": balance, "workers": 2}, augment=augment)
    assert helped.train_loader.num_workers == 2
    expected = batches_of(alone.train_loader, 0, 1)
    found = batches_of(helped.train_loader, 0, 1)
    assert len(found) == len(expected) == 6
    for one, two in zip(expected, found, strict=True):
        for first, second in zip(one, two, strict=True):
            assert torch.equal(first, second)
    for one, two in zip(alone.val_loader, helped.val_loader, strict=True):
        for first, second in zip(one, two, strict=True):
            assert torch.equal(first, second)


def test_epochs_differ_and_an_epoch_can_be_drawn_again(root):
    loader = load(root).train_loader
    first, second, again = (batches_of(loader, epoch) for epoch in (0, 1, 0))
    assert not any(torch.equal(a[0], b[0]) for a in first for b in second)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))


def test_the_seed_of_the_run_and_nothing_else_draws_the_crops(root):
    torch.manual_seed(1)
    np.random.seed(1)
    first = batches_of(load(root).train_loader, 0)
    torch.manual_seed(2)
    np.random.seed(2)
    same = batches_of(load(root).train_loader, 0)
    other = batches_of(load(root, train={"seed": 1}).train_loader, 0)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_bands_of_the_settings_reach_the_samples(root):
    whole = load(root, augment={"radiometry": 0})
    part = load(root, data={"bands": [4, 1]}, augment={"radiometry": 0})
    assert part.summary.bands == (4, 1)
    for one, two in zip(
        batches_of(whole.train_loader, 0), batches_of(part.train_loader, 0), strict=True
    ):
        torch.testing.assert_close(one[0][:, [3, 0]], two[0])


def test_an_epoch_sees_as_many_pixels_as_the_split_has_but_a_few_batches_at_least(
    make_folder, draw, root
):
    assert len(load(root, data={"crops_per_epoch": None}).train_loader) == MIN_BATCHES
    large = make_folder(
        {"a": ("train", *draw(0, 300, 280, bands=1)), "b": ("val", *draw(1, bands=1))}, name="large"
    )
    loader = load(large, data={"crops_per_epoch": None}).train_loader
    assert len(loader) == round(300 * 280 / 32**2 / 2) > MIN_BATCHES


def test_an_empty_split_is_refused(root):
    message = "no image is in split 'hold' to validate on; there are: train, val; make one with"
    with pytest.raises(DataError, match=message):
        load(root, data={"val_split": "hold"})
    with pytest.raises(DataError, match="no image is in split 'dev'; there are: train, val"):
        load(root, data={"train_split": ["train", "dev"]})


def test_a_network_is_not_selected_on_what_it_must_not_know(root):
    with pytest.raises(ConfigError, match=r"data\.val_split must not be 'test'"):
        load(root, data={"val_split": "test"})
    with pytest.raises(ConfigError, match="must be a split that is not trained on, got 'val'"):
        load(root, data={"train_split": ["train", "val"]})


def test_several_splits_are_trained_on_together(root):
    alone, both = (
        load(root, data={"train_split": splits, "val_split": None})
        for splits in ("train", ["train", "val"])
    )
    assert len(both.train_loader.dataset.reader.images) == 3
    assert sum(both.summary.class_pixels) > sum(alone.summary.class_pixels)


def test_a_wrong_label_for_validation_is_found_before_training(make_folder, draw):
    image, label = draw(1)
    label[3, 4] = 77
    root = make_folder({"a": ("train", *draw(0)), "b": ("val", image, label)})
    with pytest.raises(DataError, match="class id 77 at row 3, column 4"):
        load(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_whose_labels_are_all_ignored_is_refused_at_the_start(make_folder, draw, split):
    entries = {name: (name, *draw(0)) for name in ("train", "val")}
    entries[split][2][:] = NODATA_ID
    root = make_folder(entries)
    with pytest.raises(DataError) as caught:
        load(root)
    assert str(caught.value) == (
        f"split '{split}' must have labelled pixels, but in all of its 1 labels "
        f"({root / 'masks' / f'{split}.tif'} is the first) they are ignored or where the image "
        "has no data; 'cvmh data doctor' says what the labels hold"
    )


def test_labels_on_pixels_without_data_alone_are_refused(make_folder, draw):
    image, label = draw(0)
    entries = {"a": ("train", np.zeros_like(image), label), "b": ("train", *draw(1))}
    entries["b"][2][:] = NODATA_ID
    root = make_folder({**entries, "c": ("val", *draw(2))}, nodata=0)
    with pytest.raises(DataError, match="split 'train' must have labelled pixels"):
        load(root)


@pytest.mark.parametrize("written", ["values", "colours"])
def test_a_wrong_label_for_validation_is_found_in_any_encoding(make_folder, draw, written):
    colours = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
    encodings = {
        "values": LabelEncoding(num_classes=3, values={0: 255, 1: 0, 2: 1, 3: 2}),
        "colours": LabelEncoding(num_classes=3, colours=colours),
    }
    table = np.array(list(colours), np.uint8)
    entries = {}
    for number, split in enumerate(("train", "val")):
        image, ids = draw(number)
        label = ids[None] + 1 if written == "values" else table[ids].transpose(2, 0, 1)
        entries[split] = (split, image, label.astype(np.uint8))
    root = make_folder(entries)
    data = replace(open_folder(root), encoding=encodings[written])
    config = make_config(root)
    prepare_training(data, config)
    # The summaries are stored now; that the label is another one must not be missed.
    entries["val"][2][:, 3, 4] = 9
    write = make_folder({"val": entries["val"]}, name="other")
    (write / "masks" / "val.tif").replace(root / "masks" / "val.tif")
    with pytest.raises(DataError, match=r"(class id 9|colour \(9, 9, 9\)) at row 3, column 4"):
        prepare_training(data, config)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("cores", "has_gpu", "expected"),
    [(1, False, 0), (2, False, 0), (1, True, 1), (2, True, 1), (3, False, 2), (64, True, 4)],
)
def test_the_cores_and_the_gpu_decide_how_many_processes_read(
    root, monkeypatch, cores, has_gpu, expected
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    training = load(root, data={"workers": None})
    assert training.train_loader.num_workers == training.val_loader.num_workers == expected
    assert load(root, data={"workers": 3}).train_loader.num_workers == 3


@pytest.mark.parametrize("strip", [1000, 4])
def test_a_set_that_is_slow_to_read_is_told_once_how_to_make_it_fast(make_folder, strip, caplog):
    label = np.zeros((1000, 1000), np.uint8)
    entries = {split: (split, label[None] + 1, label) for split in ("train", "val")}
    blocks = {"blockysize": strip, "compress": "deflate"}
    root = make_folder(entries, label=blocks, **blocks)
    load(root)
    said = [record.getMessage() for record in caplog.records if record.name == "cvmh"]
    if strip == 4:
        # Only rows of the crop are decoded, though whole ones.
        assert said == []
    else:
        assert len(said) == 1
        assert "'cvmh data prepare' would make that" in said[0]


def test_balanced_crops_show_what_is_rare(make_folder, draw):
    image, label = draw(0, 256, 256)
    label[:] = 0
    label[100:104, 30:35] = 1
    label[200:232, 64:96] = 2
    root = make_folder({"a": ("train", image, label), "b": ("val", *draw(1))})

    def share(balance):
        settings = {"balance": balance, "crops_per_epoch": 120}
        batches = batches_of(load(root, data=settings).train_loader, 0)
        return np.mean([(crop == 1).any().item() for _, crops, _ in batches for crop in crops])

    assert share(0) < 0.1
    assert share(1) > 0.25


def test_an_epoch_without_a_whole_batch_is_refused(root):
    message = "data.crops_per_epoch must be at least data.batch, 4, got 3"
    with pytest.raises(ConfigError, match=message):
        load(root, data={"crops_per_epoch": 3, "batch": 4})
    assert len(load(root, data={"crops_per_epoch": 4, "batch": 4}).train_loader) == 1


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters")
@pytest.mark.parametrize("name", REAL)
def test_the_real_data_sets_load(name):
    bands, names, num_classes = REAL[name]
    config = make_config(Path(DATA) / "data" / name, data={"tile": 128, "workers": 0})
    data = open_data(config.data)
    assert len(data.classes) == num_classes
    training = prepare_training(data, config)
    summary = training.summary
    # The fourth band of naip_landcover6 is near infrared, though it is tagged as alpha.
    assert (summary.bands, summary.alpha) == (tuple(range(1, bands + 1)), None)
    assert summary.band_names == names
    assert summary.dtype == "uint8"
    assert all(0 < value < 255 for value in (*summary.mean, *summary.std))
    assert sum(summary.class_pixels) > 0
    image, label, _ = next(iter(training.train_loader))
    assert image.shape == (2, bands, 128, 128)
    # Normalised: neither the raw values nor a constant.
    assert image.abs().max() < 20 and image.std() > 0.1
    assert set(label.unique().tolist()) <= {*range(num_classes), NODATA_ID}
    assert (label != NODATA_ID).any()
    assert (next(iter(training.val_loader))[1] != NODATA_ID).any()
