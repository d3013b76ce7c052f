import itertools

import numpy as np
import pytest

from cvmh.classes import NODATA_ID
from cvmh.config import AugmentSettings
from cvmh.datasets import open_folder
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.crops import TrainingCrops
from cvmh.datasets.loading import make_reader
from cvmh.datasets.mixing import cutmix_box, mosaic_boxes
from cvmh.datasets.summary import summarise

TILE = 48
PLAIN = {"flips": 0, "rotations": 0, "radiometry": 0}


@pytest.fixture
def make_crops(make_folder):
    """Return a function that gives crops of an image that numbers its pixels, unscaled."""

    number_of_sets = itertools.count()

    def make(height=200, width=150, *, seed=0, hole=False, tile=TILE, **augment):
        number = np.arange(height * width, dtype=np.float32).reshape(1, height, width) + 1
        label = (number[0] % 5 % 3).astype(np.uint8)
        if hole:
            number[:, 40:90, 30:80] = -1
        root = make_folder(
            {"a": ("train", number, label)}, name=f"set{next(number_of_sets)}", nodata=-1
        )
        data = open_folder(root)
        scale = {"mean": (0.0,), "std": (1.0,)}
        summary = summarise(data, "train").model_copy(update=scale)
        reader = make_reader(data, "train", summary, tile=tile)
        settings = AugmentSettings(**{**PLAIN, **augment})
        return TrainingCrops(reader, Augmentation(settings), seed=seed)

    return make


def places_of(crop, width=150):
    """Return where the crop's upper left pixel would lie, by each of its pixels (H, W, 2)."""
    image = crop[0][0].numpy().astype(int)
    row, column = np.divmod(image - 1, width)
    here = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.stack([row - here[0], column - here[1]], axis=-1)


@pytest.mark.parametrize("tile", [32, 48, 256, 511])
def test_the_parts_of_a_mosaic_cover_each_pixel_once(tile):
    generator = np.random.default_rng(0)
    for _ in range(50):
        counts = np.zeros((tile, tile), int)
        for row, column, height, width in mosaic_boxes(generator, tile):
            assert min(height, width) >= tile // 4
            counts[row : row + height, column : column + width] += 1
        assert (counts == 1).all()


@pytest.mark.parametrize("tile", [32, 256])
def test_a_box_lies_in_the_crop_and_leaves_some_of_it(tile):
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        row, column, height, width = cutmix_box(generator, tile)
        assert 0 <= row and row + height <= tile
        assert 0 <= column and column + width <= tile
        shares.append(height * width / tile**2)
    assert 0.08 < min(shares) < 0.15
    assert 0.45 < max(shares) < 0.52


def test_a_crop_with_a_box_shows_two_places_and_the_labels_of_both(make_crops):
    crops, plain = make_crops(cutmix=1.0), make_crops(seed=0)
    for index in range(20):
        image, label, _ = crop = crops[index]
        assert np.array_equal(label, image[0].long() % 5 % 3)
        corners, counts = np.unique(places_of(crop).reshape(-1, 2), axis=0, return_counts=True)
        assert len(corners) == 2
        # The rest of the crop is as it is without the box.
        same = image[0] == plain[index][0][0]
        assert sorted(counts) == sorted([int(same.sum()), int((~same).sum())])
        assert 0.5 <= same.float().mean() <= 0.92
        box = np.argwhere(~same.numpy())
        height, width = box.max(axis=0) - box.min(axis=0) + 1
        assert len(box) == height * width


def test_a_mosaic_shows_four_places_that_meet_in_a_corner(make_crops):
    crops = make_crops(mosaic=1.0)
    for index in range(20):
        image, label, _ = crop = crops[index]
        assert np.array_equal(label, image[0].long() % 5 % 3)
        places = places_of(crop)
        corners = [places[row, column] for row in (0, -1) for column in (0, -1)]
        assert len({tuple(corner) for corner in corners}) == 4
        assert len(np.unique(places.reshape(-1, 2), axis=0)) == 4


def test_the_share_of_mixed_crops_is_as_asked(make_crops):
    crops, plain = make_crops(cutmix=0.5, mosaic=0.25), make_crops()
    kinds = [len(np.unique(places_of(crops[index]).reshape(-1, 2), axis=0)) for index in range(300)]
    shares = np.bincount(kinds, minlength=5)[[4, 2, 1]] / 300
    # Of those that are no mosaic, half have a box; four deviations.
    expected = np.array([0.25, 0.375, 0.375])
    assert (abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)).all()
    for index in np.flatnonzero(np.array(kinds) == 1)[:20]:
        assert np.array_equal(crops[int(index)][0], plain[int(index)][0])


@pytest.mark.parametrize("augment", [{"cutmix": 1}, {"mosaic": 1}, {"scale": (0.4, 2.5)}])
def test_pixels_without_data_stay_so(make_crops, augment):
    crops = make_crops(hole=True, **augment)
    empty = 0
    for index in range(30):
        image, label, _ = crops[index]
        assert (image[0][label == NODATA_ID] == 0).all()
        assert (image[0][label != NODATA_ID] > 0).all()
        empty += int((label == NODATA_ID).sum())
    assert empty > 0


@pytest.mark.parametrize(
    "augment",
    [{"cutmix": 1}, {"mosaic": 1}, {"scale": (0.5, 2)}, {"scale": (0.5, 2), "mosaic": 0.5}],
)
def test_a_crop_depends_on_seed_and_number_alone(make_crops, augment):
    settings = {**augment, "flips": 0.5, "rotations": 0.75, "radiometry": 0.5}
    one, two = make_crops(**settings), make_crops(seed=0, **settings)
    other = make_crops(seed=1, **settings)
    drawn = [two[index] for index in range(9, -1, -1)][::-1]
    for index in range(10):
        for a, b in zip(one[index][:2], drawn[index][:2], strict=True):
            assert np.array_equal(a, b)
    assert not any(np.array_equal(one[index][0], other[index][0]) for index in range(10))


# Scale.


def scale_of(crop, width=150):
    """Return how many times larger a crop shows its things, from how its numbers grow."""
    image = crop[0][0].numpy().astype(float)
    rows = np.polyfit(np.arange(TILE - 8), image[4:-4, TILE // 2], 1)[0]
    return width / rows


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_things_are_so_many_times_larger(make_crops, factor):
    crops = make_crops(scale=(factor, factor))
    for index in range(5):
        assert crops[index][0].shape == (1, TILE, TILE)
        assert scale_of(crops[index]) == pytest.approx(factor, rel=0.03)


def test_scales_are_drawn_evenly_on_a_logarithmic_scale(make_crops):
    crops = make_crops(scale=(0.5, 2.0))
    scales = np.log2([scale_of(crops[index]) for index in range(300)])
    assert -1.05 < scales.min() < -0.9 and 0.9 < scales.max() < 1.05
    assert abs(scales.mean()) < 4 * np.sqrt(4 / 12 / 300)
    assert scales.std() == pytest.approx(2 / np.sqrt(12), rel=0.12)


def test_a_small_image_keeps_its_scale_and_leaves_the_rest_empty(make_crops):
    crops = make_crops(30, 150, scale=(0.5, 0.5))
    image, label, _ = crops[0]
    shown = (label != NODATA_ID).numpy()
    assert shown[:15].all() and not shown[15:].any()
    assert (image[0][~shown] == 0).all()


def test_label_and_image_of_a_scaled_crop_fit_together(make_folder):
    rows, columns = np.mgrid[:300, :300]
    label = ((rows // 37 + columns // 29) % 3).astype(np.uint8)
    root = make_folder({"a": ("train", (label * 10 + 1.0)[None].astype(np.float32), label)})
    data = open_folder(root)
    summary = summarise(data, "train").model_copy(update={"mean": (0.0,), "std": (1.0,)})
    reader = make_reader(data, "train", summary, tile=TILE)
    settings = AugmentSettings(scale=(0.5, 2.0), radiometry=0)
    crops = TrainingCrops(reader, Augmentation(settings), seed=0)
    for index in range(20):
        image, ids, _ = crops[index]
        agree = (image[0].sub(1).div(10).round() == ids).float().mean()
        # Along borders the image is a mixture.
        assert agree > 0.9
