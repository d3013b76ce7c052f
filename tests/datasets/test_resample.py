import numpy as np
import pytest

from cvmh.classes import NODATA_ID
from cvmh.datasets.reader import Cut
from cvmh.datasets.resample import resample


def cut_of(image, label=None, validity=None):
    height, width = image.shape[1:]
    label = np.zeros((height, width), np.uint8) if label is None else label
    validity = np.ones((height, width), bool) if validity is None else validity
    return Cut(image.astype(np.float32), label, validity)


def plane(height, width, bands=3):
    """Return bands that rise by 1 a row and by 2 a column, at the centres of pixels."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (rows + 2 * columns)[None] * (np.arange(bands) + 1)[:, None, None]


@pytest.mark.parametrize("bands", [1, 3, 4, 10, 13])
@pytest.mark.parametrize("size", [(32, 48), (100, 150), (61, 37), (64, 96), (128, 95)])
def test_a_plane_stays_the_same_plane_on_the_ground(size, bands):
    source = plane(64, 96, bands)
    found = resample(cut_of(source), *size)
    assert found.image.shape == (bands, *size)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    expected = (rows * 64 / size[0] + 2 * columns * 96 / size[1])[None]
    expected = expected * (np.arange(bands) + 1)[:, None, None]
    # Beyond the outermost centres nothing is known; there the value stays.
    inside = (slice(None), slice(2, -2), slice(2, -2))
    # A mean over parts of pixels is off by an eighth of a pixel at most, linear values are not;
    # they are only rounded to a 32nd of a pixel.
    shrinks = size[0] < 64 and size[1] < 96
    tolerance = bands * (3 / 8 if shrinks else 3 / 32)
    np.testing.assert_allclose(found.image[inside], expected[inside], atol=tolerance)
    assert found.validity.all() and found.image.dtype == np.float32


def test_shrinking_to_half_takes_the_mean_of_four():
    image = np.random.default_rng(0).normal(size=(5, 40, 60))
    found = resample(cut_of(image), 20, 30).image
    expected = image.reshape(5, 20, 2, 30, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_fine_stripes_do_not_become_coarse_ones():
    image = np.broadcast_to((np.arange(240) % 2 * 2 - 1.0)[None, None], (1, 240, 240))
    found = resample(cut_of(image), 125, 125).image
    assert abs(found).max() < 0.55


@pytest.mark.parametrize("size", [(20, 20), (40, 40), (80, 80), (100, 100)])
def test_labels_are_those_of_the_nearest_pixel(size):
    label = np.random.default_rng(0).integers(0, 5, (40, 40)).astype(np.uint8)
    label[3:7, 3:7] = NODATA_ID
    found = resample(cut_of(np.zeros((1, 40, 40)), label), *size).label
    assert set(np.unique(found)) <= {0, 1, 2, 3, 4, NODATA_ID}
    # Where a centre lies on a border, either pixel is as near.
    centres = (np.arange(size[0]) + 0.5) * 40 / size[0]
    sides = [np.clip((centres + side).astype(int), 0, 39) for side in (-1e-4, 1e-4)]
    allowed = [label[rows[:, None], columns] for rows in sides for columns in sides]
    assert np.any([found == one for one in allowed], axis=0).all()


@pytest.mark.parametrize("size", [(32, 32), (48, 50), (128, 100)])
def test_pixels_without_data_do_not_leak_into_their_neighbours(size):
    image = np.full((2, 64, 64), 5.0)
    validity = np.ones((64, 64), bool)
    validity[20:41, 10:33] = False
    image[:, ~validity] = 0
    label = np.where(validity, 1, NODATA_ID).astype(np.uint8)
    found = resample(cut_of(image, label, validity), *size)
    np.testing.assert_allclose(found.image[:, found.validity], 5, rtol=1e-5)
    assert (found.image[:, ~found.validity] == 0).all()
    assert (found.label[~found.validity] == NODATA_ID).all()
    share = 1 - 21 * 23 / 64**2
    assert abs(found.validity.mean() - share) < 0.03


def test_the_same_size_is_the_same_cut():
    cut = cut_of(plane(8, 9))
    assert resample(cut, 8, 9) is cut


def test_nothing_is_left_of_a_cut_without_data():
    found = resample(cut_of(np.zeros((1, 9, 9)), validity=np.zeros((9, 9), bool)), 20, 5)
    assert not found.validity.any()
    assert (found.label == NODATA_ID).all()
    assert np.isfinite(found.image).all()
