import numpy as np
import pytest
from scipy.stats import chisquare

from cvmh.classes import NODATA_ID
from cvmh.config import AugmentSettings
from cvmh.datasets import open_folder
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.crops import TrainingCrops
from cvmh.datasets.loading import make_reader
from cvmh.datasets.places import AnyPlaces, BalancedPlaces
from cvmh.datasets.summary import survey

TILE = 32
STILL = AugmentSettings(flips=0, rotations=0, radiometry=0)


def open_places(root, balance):
    data = open_folder(root)
    found = survey(data, "train")
    reader = make_reader(data, "train", found.summary, tile=TILE)
    return reader, BalancedPlaces(reader, found.index, balance)


def scene_of(label):
    return np.full((1, *label.shape), 7, np.uint8), label


def test_a_pixel_of_each_class_is_equally_likely_to_be_drawn(make_folder):
    """The windows of one pixel are the drawn pixels themselves."""
    label = np.zeros((300, 280), np.uint8)
    label[5, 3:11] = 1
    label[200:206, 100] = 2
    label[250:] = NODATA_ID
    root = make_folder({"a": ("train", *scene_of(label)), "b": ("train", *scene_of(label[:40]))})
    reader, places = open_places(root, 1.0)
    generator = np.random.default_rng(0)
    classes, pixels = [], []
    for _ in range(3000):
        number, window = places.draw(generator, 1, 1)
        classes.append(int(reader.read_window(number, window).label[0, 0]))
        if classes[-1] != 0:
            pixels.append((number, window.row, window.column))
    assert chisquare(np.bincount(classes)).pvalue > 0.001
    counts = np.unique([str(pixel) for pixel in pixels if pixel[1] == 5], return_counts=True)[1]
    assert len(counts) == 16
    assert chisquare(counts).pvalue > 0.001


def test_windows_lie_anywhere_around_their_pixel_and_within_the_image(make_folder):
    label = np.full((200, 200), NODATA_ID, np.uint8)
    label[3, 100] = 1
    _, places = open_places(make_folder({"a": ("train", *scene_of(label))}), 1.0)
    generator = np.random.default_rng(0)
    windows = [places.draw(generator, 20, 30)[1] for _ in range(2000)]
    assert {(window.height, window.width) for window in windows} == {(20, 30)}
    rows, columns = (np.array([getattr(w, name) for w in windows]) for name in ("row", "column"))
    assert set(rows) == set(range(4))
    assert set(columns) == set(range(71, 101))
    assert chisquare(np.bincount(columns - 71)).pvalue > 0.001


def test_an_image_smaller_than_the_window_is_taken_whole(make_folder):
    label = np.ones((10, 200), np.uint8)
    _, places = open_places(make_folder({"a": ("train", *scene_of(label))}), 1.0)
    number, window = places.draw(np.random.default_rng(0), 32, 32)
    assert (number, window.row, window.height, window.width) == (0, 0, 10, 32)


def test_twenty_pixels_in_a_large_scene_are_seen(make_folder):
    label = np.zeros((2000, 2000), np.uint8)
    label[1500:1504, 777:782] = 1
    reader, places = open_places(make_folder({"a": ("train", *scene_of(label))}), 1.0)
    crops = TrainingCrops(reader, Augmentation(STILL), seed=0, places=places)
    seen = np.mean([bool((crops[index][1] == 1).any()) for index in range(200)])
    # Every second crop is drawn for them; three in a hundred thousand of the others show them.
    assert 0.38 < seen < 0.62
    alone = TrainingCrops(reader, Augmentation(STILL), seed=0)
    assert not any(bool((alone[index][1] == 1).any()) for index in range(50))


def test_pixels_without_data_are_not_drawn(make_folder, draw):
    image, label = draw(0, 200, 200)
    label[:], label[50:60, 50:60], label[150, 150] = 0, 1, 1
    image[:, 50:60, 50:60] = 0
    reader, places = open_places(make_folder({"a": ("train", image, label)}, nodata=0), 1.0)
    generator = np.random.default_rng(0)
    for _ in range(60):
        number, window = places.draw(generator, 1, 1)
        class_id = int(reader.read_window(number, window).label[0, 0])
        assert class_id in (0, 1)
        assert class_id == 0 or (window.row, window.column) == (150, 150)


@pytest.mark.parametrize("balance", [0.3, 1.0])
def test_balanced_crops_are_fixed_by_seed_and_number(make_folder, draw, balance):
    root = make_folder({"a": ("train", *draw(0, 90, 80)), "b": ("train", *draw(1, 50, 70))})
    settings = AugmentSettings(scale=(0.5, 2), cutmix=0.5, mosaic=0.3)
    (reader, places), (other, others) = (open_places(root, balance) for _ in range(2))
    one = TrainingCrops(reader, Augmentation(settings), seed=1, places=places)
    two = TrainingCrops(other, Augmentation(settings), seed=1, places=others)
    for index in (40, 3, 0, 17):
        np.testing.assert_array_equal(one[index][0], two[index][0])
        np.testing.assert_array_equal(one[index][1], two[index][1])


def test_without_balance_an_image_is_drawn_as_numpy_chooses_it(make_folder, draw):
    sizes = [(40, 60), (100, 33), (35, 35), (64, 90)]
    root = make_folder({str(i): ("train", *draw(i, *size)) for i, size in enumerate(sizes)})
    reader, _ = open_places(root, 1.0)
    areas = np.array([height * width for height, width in sizes], float)
    for seed in range(200):
        number, window = AnyPlaces(reader).draw(np.random.default_rng(seed), TILE, TILE)
        generator = np.random.default_rng(seed)
        assert number == generator.choice(4, p=areas / areas.sum())
        assert window.row == generator.integers(sizes[number][0] - TILE + 1)
        assert window.column == generator.integers(sizes[number][1] - TILE + 1)
