import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmh.classes import NODATA_ID
from cvmh.config import AugmentSettings
from cvmh.datasets import open_folder
from cvmh.datasets.augment import Augmentation
from cvmh.datasets.crops import TrainingCrops, ValidationTiles
from cvmh.datasets.labelled import LabelEncoding, LabelledImage
from cvmh.datasets.reader import Reader
from cvmh.datasets.reading import choose_bands
from cvmh.datasets.samplers import NO_TILE, EpochSampler, TileSampler
from cvmh.errors import DataError
from cvmh.geo.raster import write_raster
from cvmh.geo.tiling import Window

STILL = AugmentSettings(flips=0, rotations=0, radiometry=0)
TILE = 32


def make_reader(root, split="train", *, tile=TILE, mean=0.0, std=1.0):
    data = open_folder(root)
    images = data.of_split(split)
    chosen = choose_bands([image.image for image in images])
    num_bands = len(chosen.bands)
    scale = {"mean": (mean,) * num_bands, "std": (std,) * num_bands}
    return Reader(images, data.encoding, chosen, tile=tile, **scale)


def make_crops(root, *, seed=0, augment=STILL, **options):
    return TrainingCrops(make_reader(root, **options), Augmentation(augment), seed=seed)


def number_pixels(height, width):
    """Return an image whose one band numbers the pixels from 1, and a label with every class."""
    number = np.arange(height * width, dtype=np.float32).reshape(1, height, width) + 1
    return number, (number[0] % 3).astype(np.uint8)


def assert_same(one, two):
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert one[2] == two[2]


# The reader.


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint16"), (3, "uint8"), (10, "float32")])
def test_a_window_is_normalised_per_band(make_folder, draw, bands, dtype):
    image, label = draw(0, bands=bands, dtype=dtype)
    data = open_folder(make_folder({"a": ("train", image, label)}))
    mean, std = np.arange(bands) * 3.0 + 1, np.arange(bands) + 2.0
    chosen = choose_bands([data.images[0].image])
    reader = Reader(data.images, data.encoding, chosen, mean=mean, std=std, tile=TILE)
    found, ids, valid = reader.read(0, Window(5, 7, TILE, TILE))
    expected = (image - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(found, expected[:, 5:37, 7:39], rtol=1e-5, atol=1e-6)
    assert (found.dtype, ids.dtype, valid.dtype) == (np.float32, np.uint8, bool)
    np.testing.assert_array_equal(ids, label[5:37, 7:39])
    assert valid.all()


def test_invalid_pixels_are_zero_in_the_image_and_ignored_in_the_label(make_folder, draw):
    image, label = draw(0)
    hole = np.zeros(label.shape, bool)
    hole[3:20, 4:30] = True
    image[:, hole] = 0
    reader = make_reader(make_folder({"a": ("train", image, label)}, nodata=0), mean=10.0, std=2.0)
    found, ids, valid = reader.read(0, Window(0, 0, TILE, TILE))
    hole = hole[:TILE, :TILE]
    np.testing.assert_array_equal(valid, ~hole)
    assert (found[:, hole] == 0).all()
    assert (ids[hole] == NODATA_ID).all()
    np.testing.assert_array_equal(ids[~hole], label[:TILE, :TILE][~hole])


def test_a_missing_sample_becomes_the_mean_and_its_pixel_stays(make_folder, draw):
    image, label = draw(0, dtype="float32")
    image[1, 2, 3] = -9999
    reader = make_reader(make_folder({"a": ("train", image, label)}, nodata=-9999), mean=7.0)
    found, ids, valid = reader.read(0, Window(0, 0, TILE, TILE))
    assert valid.all()
    assert found[1, 2, 3] == 0
    assert found[0, 2, 3] == image[0, 2, 3] - 7
    assert ids[2, 3] == label[2, 3]


def test_a_smaller_window_is_padded_with_what_does_not_count(make_folder, draw):
    image, label = draw(0)
    reader = make_reader(make_folder({"a": ("train", image, label)}), mean=100.0)
    found, ids, valid = reader.read(0, Window(30, 41, 10, 9))
    assert found.shape == (3, TILE, TILE)
    inside = np.zeros((TILE, TILE), bool)
    inside[:10, :9] = True
    np.testing.assert_array_equal(found[:, :10, :9], image[:, 30:, 41:] - 100.0)
    np.testing.assert_array_equal(ids[:10, :9], label[30:, 41:])
    np.testing.assert_array_equal(valid, inside)
    assert (found[:, ~inside] == 0).all() and (ids[~inside] == NODATA_ID).all()


def test_images_that_do_not_fit_are_refused_before_any_crop_is_cut(make_folder, draw):
    with pytest.raises(DataError, match="must be one band of 40 x 50"):
        make_reader(make_folder({"a": ("train", draw(0)[0], draw(0, width=51)[1])}))
    data = open_folder(make_folder({"a": ("train", *draw(0))}, name="other"))
    four = choose_bands([data.images[0].image])._replace(bands=(1, 2, 4))
    with pytest.raises(DataError, match=r"must have bands \[1, 2, 4\] of uint8"):
        Reader(data.images, data.encoding, four, mean=(0,) * 3, std=(1,) * 3, tile=TILE)


# Crops to train on.


def test_a_sample_is_a_tensor_of_numbers_a_tensor_of_ids_and_its_index(make_folder, draw):
    image, label, index = make_crops(make_folder({"a": ("train", *draw(0, bands=4))}))[5]
    assert (image.shape, image.dtype) == ((4, TILE, TILE), torch.float32)
    assert (label.shape, label.dtype) == ((TILE, TILE), torch.int64)
    assert index == 5


def test_seed_and_index_fix_a_crop(make_folder, draw):
    root = make_folder({"a": ("train", *draw(0)), "b": ("train", *draw(1))})
    augment = AugmentSettings()
    crops = make_crops(root, seed=3, augment=augment)
    later = make_crops(root, seed=3, augment=augment)
    for index in (7, 0, 123_456):
        assert_same(crops[index], later[index])
    assert not torch.equal(crops[0][0], crops[1][0])
    assert not torch.equal(crops[0][0], make_crops(root, seed=4, augment=augment)[0][0])


@pytest.mark.parametrize("augment", [STILL, AugmentSettings(radiometry=0)])
def test_image_and_label_of_a_crop_belong_together(make_folder, augment):
    root = make_folder({"a": ("train", *number_pixels(70, 90))})
    crops = make_crops(root, augment=augment)
    for index in range(20):
        image, label, _ = crops[index]
        assert torch.equal(label, image[0].long() % 3)


def test_crops_are_whole_windows_of_their_image_and_reach_every_border(make_folder):
    height, width = 40, 36
    root = make_folder({"a": ("train", *number_pixels(height, width))})
    crops = make_crops(root)
    corners = set()
    for index in range(200):
        image = crops[index][0][0].numpy()
        row, column = divmod(int(image[0, 0]) - 1, width)
        number = number_pixels(height, width)[0][0]
        np.testing.assert_array_equal(image, number[row : row + TILE, column : column + TILE])
        corners.add((row, column))
    rows, columns = zip(*corners, strict=True)
    assert (min(rows), max(rows)) == (0, height - TILE)
    assert (min(columns), max(columns)) == (0, width - TILE)


def test_images_are_chosen_in_proportion_to_their_area(make_folder):
    large, small = np.ones((1, 96, 64), np.uint8), np.full((1, 64, 32), 2, np.uint8)
    root = make_folder(
        {
            "a": ("train", large, np.zeros((96, 64), np.uint8)),
            "b": ("train", small, np.zeros((64, 32), np.uint8)),
        }
    )
    crops = make_crops(root)
    share = np.mean([crops[index][0].min().item() == 1 for index in range(400)])
    # Three quarters of the pixels; four deviations of 400 draws to either side.
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 400)


@pytest.mark.parametrize(("height", "width"), [(20, 25), (50, 7), (1, 1), (32, 31)])
def test_an_image_smaller_than_the_tile_is_used_whole(make_folder, height, width):
    number, label = number_pixels(height, width)
    root = make_folder({"a": ("train", number, label)})
    image, ids, _ = make_crops(root)[0]
    rows = min(height, TILE)
    assert int((ids != NODATA_ID).sum()) == rows * min(width, TILE)
    assert torch.equal(ids[:rows, :width], image[0, :rows, :width].long() % 3)
    assert (image[0][ids == NODATA_ID] == 0).all()


def test_places_without_a_label_are_passed_over(make_folder):
    number, label = number_pixels(128, 128)
    label[:, 40:] = NODATA_ID
    crops = make_crops(make_folder({"a": ("train", number, label)}))
    labelled = [bool((crops[index][1] != NODATA_ID).any()) for index in range(60)]
    # 40 of 97 places reach the label; ten tries miss it once in 200 crops.
    assert np.mean(labelled) > 0.9


def test_a_set_without_any_label_still_gives_crops(make_folder, draw):
    image, label = draw(0)
    label[:] = NODATA_ID
    found = make_crops(make_folder({"a": ("train", image, label)}))[0]
    assert (found[1] == NODATA_ID).all()


def test_crops_are_where_their_number_draws_them(make_folder, draw):
    sizes = {"a": (90, 70), "b": (40, 130), "c": (64, 64)}
    root = make_folder({s: ("train", *draw(i, *size)) for i, (s, size) in enumerate(sizes.items())})
    augment = AugmentSettings()
    crops = make_crops(root, seed=5, augment=augment)
    areas = np.array([height * width for height, width in sizes.values()], float)
    for index in range(30):
        generator = np.random.default_rng([5, index])
        number = int(generator.choice(3, p=areas / areas.sum()))
        height, width = list(sizes.values())[number]
        row, column = generator.integers(height - TILE + 1), generator.integers(width - TILE + 1)
        sample = crops.reader.read(number, Window(int(row), int(column), TILE, TILE))
        image, label = Augmentation(augment)(*sample, seed=int(generator.integers(2**31)))
        np.testing.assert_array_equal(crops[index][0], image)
        np.testing.assert_array_equal(crops[index][1], label)


# Tiles to validate on.


def count_pixels(tiles, height, width):
    """Count in how many tiles each pixel of numbered images is labelled."""
    counts = np.zeros(height * width, int)
    for index in range(len(tiles)):
        image, label, number = tiles[index]
        assert number == index
        counted = label != NODATA_ID
        places = image[0][counted].long()
        assert torch.equal(label[counted], places % 3)
        np.add.at(counts, places.numpy() - 1, 1)
    return counts.reshape(height, width)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100), tile=st.sampled_from([32, 48]))
def test_tiles_count_every_pixel_exactly_once(tmp_path_factory, height, width, tile):
    folder = tmp_path_factory.mktemp("tiles")
    number, label = number_pixels(height, width)
    write_raster(folder / "image.tif", number)
    write_raster(folder / "label.tif", label)
    entry = LabelledImage(
        stem="a", image=folder / "image.tif", label=folder / "label.tif", split="val"
    )
    chosen = choose_bands([entry.image])
    reader = Reader(
        [entry], LabelEncoding(num_classes=3), chosen, mean=(0.0,), std=(1.0,), tile=tile
    )
    tiles = ValidationTiles(reader)
    assert len(tiles) == -(-height // tile) * -(-width // tile)
    assert (count_pixels(tiles, height, width) == 1).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 33), (31, 100), (32, 32)])
def test_tiles_see_as_much_of_the_image_as_fits(make_folder, height, width):
    root = make_folder({"a": ("val", *number_pixels(height, width))})
    tiles = ValidationTiles(make_reader(root, "val"))
    for index in range(len(tiles)):
        seen = int((tiles[index][0] > 0).sum())
        assert seen == min(height, TILE) * min(width, TILE)


def test_tiles_count_the_labelled_and_valid_pixels_of_several_images(make_folder, draw):
    entries, expected = {}, 0
    for stem, size in {"a": (45, 70), "b": (20, 33), "c": (64, 32)}.items():
        image, label = draw(0, *size)
        image[:, :4, :9] = 0
        label[:6, -5:] = NODATA_ID
        entries[stem] = ("val", image, label)
        expected += int(((image != 0).any(axis=0) & (label != NODATA_ID)).sum())
    tiles = ValidationTiles(make_reader(make_folder(entries, nodata=0), "val"))
    counted = sum(int((tiles[index][1] != NODATA_ID).sum()) for index in range(len(tiles)))
    assert counted == expected


# The numbering of crops.


def test_every_epoch_has_its_own_crops_and_resumes_at_its_own_number():
    sampler = EpochSampler(5)
    assert len(sampler) == 5
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen += list(sampler)
    assert seen == list(range(15))
    resumed = EpochSampler(5)
    resumed.set_epoch(2)
    assert list(resumed) == seen[10:]


@pytest.mark.parametrize(("num_replicas", "batch"), [(1, 3), (2, 4), (3, 2), (4, 1)])
@pytest.mark.parametrize("num_tiles", [1, 5, 24, 29])
def test_processes_share_the_tiles_of_a_step_and_count_each_once(num_replicas, batch, num_tiles):
    steps = []
    for rank in range(num_replicas):
        sampler = TileSampler(num_tiles, batch=batch)
        sampler.share(num_replicas=num_replicas, rank=rank)
        numbers = list(sampler)
        assert len(sampler) == len(numbers)
        steps.append([numbers[i : i + batch] for i in range(0, len(numbers), batch)])
    whole = num_replicas * batch
    assert {len(share) for share in steps} == {-(-num_tiles // whole)}
    together = [[n for part in parts for n in part] for parts in zip(*steps, strict=True)]
    real = [[number for number in step if number != NO_TILE] for step in together]
    assert real == [list(range(i, min(i + whole, num_tiles))) for i in range(0, num_tiles, whole)]


def test_a_tile_that_does_not_count_is_ignored(make_folder, draw):
    tiles = ValidationTiles(make_reader(make_folder({"a": ("train", *draw(0))})))
    assert (tiles[NO_TILE][1] == NODATA_ID).all()
    assert (tiles[0][1] != NODATA_ID).any()


@pytest.mark.parametrize(("num_replicas", "batch"), [(1, 3), (2, 4), (3, 2), (4, 1)])
@pytest.mark.parametrize("crops", [24, 29])
def test_processes_share_the_crops_of_a_step_of_one_process(num_replicas, batch, crops):
    alone = EpochSampler(crops, batch=num_replicas * batch)
    shares = [EpochSampler(crops, batch=batch) for _ in range(num_replicas)]
    for rank, sampler in enumerate(shares):
        sampler.share(num_replicas=num_replicas, rank=rank)
    for epoch in (0, 1, 5):
        for sampler in (alone, *shares):
            sampler.set_epoch(epoch)
        together = np.reshape(list(alone), (-1, num_replicas * batch))
        parts = [np.reshape(list(sampler), (-1, batch)) for sampler in shares]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), together)
        assert {len(sampler) for sampler in shares} == {len(together) * batch}
        assert together.min() == epoch * crops
        assert together.max() < (epoch + 1) * crops
