from pathlib import Path

import numpy as np
import pytest

from cvmh.classes import ISPRS
from cvmh.datasets import LabelledImage
from cvmh.geo.raster import Raster, write_raster
from cvmh.geo.tiling import Window
from cvmh.plots import NODATA_COLOUR, RIGHT_COLOUR, WRONG_COLOUR, colour_ids
from cvmh.report.window_pictures import draw_windows
from cvmh.report.windows import ScoredWindow


def found_in(path, window, *, seed=0):
    truth, guess = (
        np.random.default_rng(seed).integers(0, 6, (2, window.height, window.width)).astype("uint8")
    )
    truth[0] = 255
    image = LabelledImage(stem=Path(path).stem, image=path, label=path, split="val")
    return ScoredWindow(image=image, window=window, truth_HW=truth, guess_HW=guess)


@pytest.fixture
def write(tmp_path):
    def write(name, image, **options):
        write_raster(tmp_path / name, image, **options)
        return tmp_path / name

    return write


def test_windows_of_one_image_are_stretched_alike_and_those_of_another_on_their_own(write):
    ramp = np.tile(np.linspace(0, 4000, 600), (3, 500, 1)).astype("uint16")
    first, second = write("a.tif", ramp), write("b.tif", ramp // 2)
    windows = [Window(0, 0, 200, 200), Window(300, 400, 200, 200), Window(0, 400, 200, 200)]
    found = [found_in(path, window) for path in (first, second) for window in windows]
    drawn = draw_windows(found, ISPRS)
    assert [panels.image.shape for panels in drawn] == [(200, 200, 3)] * 6
    # The left is dark and the right is light, because the range is that of the whole image.
    assert drawn[0].image.max() < 90 and drawn[1].image.min() > 160
    np.testing.assert_array_equal(drawn[1].image, drawn[2].image)
    # Half as bright is the same picture, because an image has a range of its own.
    for one, half in zip(drawn[:3], drawn[3:], strict=True):
        assert abs(one.image.astype(int) - half.image).max() <= 4


def test_label_mask_and_errors_are_in_their_colours(write):
    path = write("a.tif", np.ones((3, 50, 60), "uint8"))
    (panels,) = draw_windows([found_in(path, Window(5, 6, 20, 30))], ISPRS)
    truth, guess = panels.found.truth_HW, panels.found.guess_HW
    np.testing.assert_array_equal(panels.label, colour_ids(truth, ISPRS))
    np.testing.assert_array_equal(panels.mask, colour_ids(guess, ISPRS))
    is_red = (panels.error == WRONG_COLOUR).all(axis=-1)
    np.testing.assert_array_equal(is_red, (truth != guess) & (truth != 255))
    assert (panels.error[(truth == guess)] == RIGHT_COLOUR).all()


def test_red_green_and_blue_are_shown_wherever_they_are(write):
    levels = np.array([10, 200, 100, 50], "uint8")[:, None, None]
    image = np.broadcast_to(levels, (4, 40, 40)).copy()
    image[:, 0] = 0
    image[:, 1] = 250
    path = write("a.tif", image, band_names=("nir", "blue", "green", "red"))
    (natural,) = draw_windows([found_in(path, Window(10, 10, 8, 8))], ISPRS)
    red, green, blue = natural.image[0, 0].tolist()
    assert red < green < blue
    (chosen,) = draw_windows([found_in(path, Window(10, 10, 8, 8))], ISPRS, bands=(1, 4, 2))
    first, second, third = chosen.image[0, 0].tolist()
    assert first < second < third
    (single,) = draw_windows([found_in(path, Window(10, 10, 8, 8))], ISPRS, bands=(2, 3))
    assert np.ptp(single.image[0, 0]) == 0


def test_pixels_without_data_are_light_grey_and_do_not_set_the_range(write):
    image = np.random.default_rng(0).random((3, 64, 64)).astype("float32") * 0.2
    image[:, :32] = -9999
    image[0, 40, 40] = np.nan
    path = write("a.tif", image, nodata=-9999)
    (panels,) = draw_windows([found_in(path, Window(16, 16, 40, 40))], ISPRS)
    assert (panels.image[:16] == NODATA_COLOUR).all()
    assert (panels.image[24, 24] == NODATA_COLOUR).all()
    assert panels.image[16:].std() > 50


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (5, 2)])
def test_tiny_images_are_pictures_too(size, write):
    path = write("a.tif", np.full((1, *size), 7, "uint8"))
    (panels,) = draw_windows([found_in(path, Window(0, 0, *size))], ISPRS)
    assert panels.image.shape == (*size, 3)


def test_a_large_image_is_never_read_whole(write, monkeypatch):
    path = write("a.tif", np.zeros((3, 1500, 2600), "uint8"))
    read, sizes = Raster.read, []

    def count(self, window=None, bands=None):
        pixels = read(self, window, bands)
        sizes.append(pixels.shape[1] * pixels.shape[2])
        return pixels

    monkeypatch.setattr(Raster, "read", count)
    draw_windows([found_in(path, Window(0, 0, 256, 256))] * 3, ISPRS)
    assert max(sizes) <= 256 * 256 and len(sizes) <= 16 + 3
