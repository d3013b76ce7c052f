import numpy as np
import pytest

from cvmh.config import AugmentSettings
from cvmh.datasets.augment import Augmentation

SIDE = 32
NONE = AugmentSettings(flips=0, rotations=0, radiometry=0)
MOVES = AugmentSettings(flips=0.5, rotations=1, radiometry=0)
JITTER = AugmentSettings(radiometry=1)
LIGHT = AugmentSettings(flips=0, rotations=0, radiometry=1)


def make_sample(bands=3, seed=0):
    """Return an image that holds a number of its pixel in every band, its label and validity.

    The number is multiplied by (band + 1); the label is the number's rest by 5.
    """
    generator = np.random.default_rng(seed)
    number = generator.permutation(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float32) + 1
    validity = generator.random((SIDE, SIDE)) < 0.9
    image = number * (np.arange(bands, dtype=np.float32) + 1)[:, None, None]
    label = np.where(validity, number % 5, 255).astype(np.uint8)
    return image * validity, label, validity


def symmetries(array):
    """Return the eight ways to lay a square array (..., H, W)."""
    turned = [np.rot90(array, turns, axes=(-2, -1)) for turns in range(4)]
    return turned + [np.flip(one, axis=-1) for one in turned]


def way_of(image, moved):
    found = [way for way, one in enumerate(symmetries(image)) if np.array_equal(one, moved)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("bands", [1, 3, 4, 10])
def test_geometry_moves_image_and_label_together(bands):
    image, label, validity = make_sample(bands)
    augment = Augmentation(MOVES)
    ways = set()
    for seed in range(40):
        moved_image, moved_label = augment(image, label, validity, seed=seed)
        way = way_of(image, moved_image)
        np.testing.assert_array_equal(moved_label, symmetries(label)[way])
        ways.add(way)
    assert ways == set(range(8))


def test_light_and_geometry_are_drawn_apart():
    image, label, validity = make_sample()
    augment = Augmentation(AugmentSettings(flips=0.5, rotations=0, radiometry=0.5))
    seen = set()
    for seed in range(60):
        moved_image, moved_label = augment(image, label, validity, seed=seed)
        way = way_of(label, moved_label)
        seen.add((way, np.array_equal(moved_image, symmetries(image)[way])))
    # Kept, turned by half, mirrored along either axis; each with and without other light.
    assert seen == {(way, same) for way in (0, 2, 4, 6) for same in (True, False)}


@pytest.mark.parametrize("bands", [1, 3, 4, 10])
def test_shapes_and_dtypes_stay(bands):
    image, label, validity = make_sample(bands)
    for seed in range(5):
        moved_image, moved_label = Augmentation(AugmentSettings())(
            image, label, validity, seed=seed
        )
        assert (moved_image.shape, moved_image.dtype) == ((bands, SIDE, SIDE), np.float32)
        assert (moved_label.shape, moved_label.dtype) == ((SIDE, SIDE), np.uint8)
        assert moved_image.flags.c_contiguous and moved_label.flags.c_contiguous


def test_the_same_seed_gives_the_same_sample_and_another_one_another():
    sample = make_sample(4)
    augment = Augmentation(JITTER)
    first = augment(*sample, seed=7)
    other = augment(*sample, seed=8)
    for again in (augment(*sample, seed=7), Augmentation(JITTER)(*sample, seed=7)):
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    "settings",
    [
        NONE,
        AugmentSettings(
            flips=0, rotations=0, radiometry=1, brightness=0, contrast=0, band_shift=0, noise=0
        ),
    ],
    ids=["no probability", "no strength"],
)
def test_without_strength_nothing_changes(settings):
    image, label, validity = make_sample(4)
    for seed in range(5):
        moved_image, moved_label = Augmentation(settings)(image, label, validity, seed=seed)
        np.testing.assert_array_equal(moved_image, image)
        np.testing.assert_array_equal(moved_label, label)


def test_the_sample_that_was_given_is_not_changed():
    image, label, validity = make_sample()
    kept = image.copy(), label.copy(), validity.copy()
    Augmentation(AugmentSettings(radiometry=1))(image, label, validity, seed=0)
    for one, two in zip((image, label, validity), kept, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("settings", [LIGHT, AugmentSettings(radiometry=1)])
def test_invalid_pixels_stay_zero(settings):
    image, label, validity = make_sample()
    for seed in range(10):
        moved_image, moved_label = Augmentation(settings)(image, label, validity, seed=seed)
        assert (moved_image[:, moved_label == 255] == 0).all()
        assert (moved_image[:, moved_label != 255] != 0).all()


def test_radiometry_changes_no_label():
    image, label, validity = make_sample()
    for seed in range(5):
        moved_image, moved_label = Augmentation(LIGHT)(image, label, validity, seed=seed)
        np.testing.assert_array_equal(moved_label, label)
        assert not np.array_equal(moved_image, image)


@pytest.mark.parametrize("seed", range(5))
def test_brightness_contrast_and_band_shift_are_one_line_a_band(seed):
    settings = LIGHT.model_copy(
        update={"brightness": 0.2, "contrast": 0.3, "band_shift": 0.1, "noise": 0.0}
    )
    image = np.random.default_rng(0).normal(size=(4, SIDE, SIDE)).astype(np.float32)
    everywhere = np.ones((SIDE, SIDE), bool)
    moved, _ = Augmentation(settings)(image, everywhere.astype(np.uint8), everywhere, seed=seed)
    lines = [np.polyfit(a.ravel(), b.ravel(), 1) for a, b in zip(image, moved, strict=True)]
    factors, shifts = np.array(lines).T
    np.testing.assert_allclose(factors, factors[0], rtol=1e-5)
    assert 0.7 <= factors[0] <= 1.3
    shifts /= factors
    assert abs(shifts).max() <= 0.3
    # The bands are shifted against each other, by twice the band shift at most.
    assert 0 < np.ptp(shifts) <= 0.2


def test_noise_is_white_and_not_stronger_than_asked():
    settings = LIGHT.model_copy(
        update={"brightness": 0.0, "contrast": 0.0, "band_shift": 0.0, "noise": 0.05}
    )
    image = np.zeros((3, 128, 128), np.float32)
    everywhere = np.ones((128, 128), bool)
    deviations = []
    for seed in range(8):
        moved, _ = Augmentation(settings)(image, everywhere.astype(np.uint8), everywhere, seed=seed)
        deviations.append(moved.std())
        assert abs(moved.mean()) < 0.002
        assert abs(np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1]) < 0.05
    assert max(deviations) < 0.05 * 1.02
    assert min(deviations) < max(deviations) / 2
