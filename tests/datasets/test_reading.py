import numpy as np
import pytest

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.datasets.labelled import LabelEncoding
from cvmh.datasets.reading import (
    ImageBands,
    check_bands,
    check_label,
    choose_bands,
    read_image,
    read_label,
)
from cvmh.errors import CvmhError, DataError, RasterError
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

RGBA = ("red", "green", "blue", "alpha")


def message_of(action, kind=DataError):
    with pytest.raises(CvmhError) as caught:
        action()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def read_whole(path, chosen):
    with Raster(path) as raster:
        return read_image(raster, chosen, Window(0, 0, raster.height, raster.width))


def labels_of(path, encoding, window=None):
    if isinstance(encoding, ClassTable):
        encoding = LabelEncoding(num_classes=len(encoding))
    with Raster(path) as label:
        return read_label(label, encoding, window or Window(0, 0, label.height, label.width))


# Choice of bands.


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 4, 10])
def test_every_band_of_a_geotiff_is_data(tmp_path, write, draw, dtype, bands):
    image, _ = draw(0, bands=bands, dtype=dtype)
    path = write(tmp_path / "a.tif", image, photometric="MINISBLACK", alpha="NO")
    chosen = choose_bands([path])
    assert (chosen.bands, chosen.alpha) == (tuple(range(1, bands + 1)), None)
    assert (len(chosen.names), chosen.dtype) == (bands, dtype)
    values, valid = read_whole(path, chosen)
    np.testing.assert_array_equal(values, image.astype(np.float32))
    assert values.dtype == np.float32
    assert valid.all()


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16")])
def test_png_images_are_read_as_they_are(tmp_path, write, draw, bands, dtype):
    image, _ = draw(0, bands=bands, dtype=dtype)
    path = write(tmp_path / "a.png", image)
    chosen = choose_bands([path])
    assert (chosen.bands, chosen.dtype) == (tuple(range(1, bands + 1)), dtype)
    np.testing.assert_array_equal(read_whole(path, chosen)[0], image)


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_images_are_read_with_the_losses_of_jpeg_alone(tmp_path, write, bands):
    image = np.full((bands, 32, 48), 90, np.uint8)
    path = write(tmp_path / "a.jpg", image, quality=95)
    values, valid = read_whole(path, choose_bands([path]))
    assert values.shape == image.shape
    assert abs(values - 90).max() < 3
    assert valid.all()


def test_bands_have_the_names_that_the_file_gives_them(tmp_path, write, draw):
    image, _ = draw(0, bands=4)
    path = write(tmp_path / "a.tif", image, names=("B02", "B03", "B04", "B08"))
    assert choose_bands([path]).names == ("B02", "B03", "B04", "B08")
    assert choose_bands([path], (4, 1)).names == ("B08", "B02")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_true_alpha_band_is_no_data_and_hides_pixels(tmp_path, write, draw, suffix):
    image, _ = draw(0, bands=4)
    image[3] = 255
    image[3, :5, :6] = 0
    path = write(tmp_path / f"a{suffix}", image, colours=RGBA if suffix == ".tif" else None)
    chosen = choose_bands([path])
    assert (chosen.bands, chosen.alpha) == ((1, 2, 3), 4)
    assert chosen.names == ("red", "green", "blue")
    values, valid = read_whole(path, chosen)
    np.testing.assert_array_equal(valid, image[3] == 255)
    assert np.isnan(values[:, ~valid]).all()
    np.testing.assert_array_equal(values[:, valid], image[:3, valid])


def test_near_infrared_tagged_as_alpha_is_data(tmp_path, write, draw):
    image, _ = draw(0, bands=4)
    image[3, 0] = 0
    path = write(tmp_path / "a.tif", image, colours=RGBA)
    chosen = choose_bands([path])
    assert (chosen.bands, chosen.alpha) == ((1, 2, 3, 4), None)
    values, valid = read_whole(path, chosen)
    np.testing.assert_array_equal(values, image)
    assert valid.all()


def test_one_image_whose_fourth_band_is_no_alpha_decides_for_the_set(tmp_path, write, draw):
    opaque, _ = draw(0, bands=4)
    opaque[3] = 255
    shades, _ = draw(1, bands=4)
    first = write(tmp_path / "a.tif", opaque, colours=RGBA)
    second = write(tmp_path / "b.tif", shades, colours=RGBA)
    assert choose_bands([first]).alpha == 4
    assert choose_bands([first, second]).bands == (1, 2, 3, 4)
    assert choose_bands([first, second]).alpha is None


def test_bands_that_the_user_names_win_over_the_alpha_tag(tmp_path, write, draw):
    image, _ = draw(0, bands=4)
    image[3] = 255
    image[3, :5] = 0
    path = write(tmp_path / "a.tif", image, colours=RGBA)
    chosen = choose_bands([path], (4, 2))
    assert (chosen.bands, chosen.alpha) == ((4, 2), None)
    values, valid = read_whole(path, chosen)
    np.testing.assert_array_equal(values, image[[3, 1]])
    assert valid.all()
    # Without the fourth band it still says where the others are data.
    values, valid = read_whole(path, choose_bands([path], (2,)))
    np.testing.assert_array_equal(valid, image[3] == 255)


@pytest.mark.parametrize("wanted", [(0,), (1, 4), (-1,), (7,)])
def test_a_wanted_band_that_is_not_there_is_refused(tmp_path, write, draw, wanted):
    path = write(tmp_path / "a.tif", draw(0)[0])
    message = message_of(lambda: choose_bands([path], wanted))
    assert message == f"data.bands must name bands 1..3 of {path}, got {list(wanted)}"


def test_an_alpha_band_alone_is_no_image(tmp_path, write):
    path = write(tmp_path / "a.tif", np.full((1, 8, 8), 255, np.uint8), colours=("alpha",))
    assert f"{path} must have a band of data" in message_of(lambda: choose_bands([path]))


@pytest.mark.parametrize("wanted", [None, (1,), (4,)])
def test_images_of_different_band_counts_are_refused(tmp_path, write, draw, wanted):
    first = write(tmp_path / "a.tif", draw(0, bands=4)[0], photometric="MINISBLACK")
    second = write(tmp_path / "b.tif", draw(1, bands=3)[0])
    message = message_of(lambda: choose_bands([first, second], wanted))
    assert f"a.tif has 4 of uint8 and {second} has 3 of uint8" in message


def test_images_of_different_dtypes_are_refused(tmp_path, write, draw):
    first = write(tmp_path / "a.tif", draw(0)[0])
    second = write(tmp_path / "b.tif", draw(1, dtype="uint16")[0])
    message = message_of(lambda: choose_bands([first, second]))
    assert f"a.tif has 3 of uint8 and {second} has 3 of uint16" in message


def test_complex_numbers_are_refused(tmp_path, write):
    path = write(tmp_path / "a.tif", np.zeros((1, 4, 4), np.complex64))
    assert "must hold real numbers" in message_of(lambda: choose_bands([path]), RasterError)


def test_a_later_image_must_have_the_chosen_bands(tmp_path, write, draw):
    chosen = ImageBands((1, 4), None, ("red", "nir"), "uint8")
    few = write(tmp_path / "few.tif", draw(0)[0])
    other = write(tmp_path / "other.tif", draw(0, bands=4, dtype="int16")[0])
    fits = write(tmp_path / "fits.tif", draw(0, bands=5)[0])
    for path, found in [(few, "has 3 of uint8"), (other, "has 4 of int16")]:
        with Raster(path) as raster:
            message = message_of(lambda raster=raster: check_bands(raster, chosen))
        assert message == f"all images must have bands [1, 4] of uint8, but {path} {found}"
    with Raster(fits) as raster:
        check_bands(raster, chosen)


# Pixels.


def test_a_pixel_whose_bands_all_are_nodata_is_not_data(tmp_path, write, draw):
    image, _ = draw(0)
    image[:, 3:6, 4:9] = 7
    image[0, 0, 0] = 7
    path = write(tmp_path / "a.tif", image, nodata=7)
    values, valid = read_whole(path, choose_bands([path]))
    np.testing.assert_array_equal(valid, (image != 7).any(axis=0))
    assert valid[0, 0] and values[0, 0, 0] == 7
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(~valid, image.shape))


@pytest.mark.parametrize("nodata", [None, np.nan, -9999.0])
def test_a_pixel_with_a_nan_is_not_data(tmp_path, write, draw, nodata):
    image, _ = draw(0, dtype="float32")
    image[1, 2, 3] = np.nan
    image[0, 4, 5] = np.inf
    path = write(tmp_path / "a.tif", image, nodata=nodata)
    values, valid = read_whole(path, choose_bands([path]))
    assert np.argwhere(~valid).tolist() == [[2, 3], [4, 5]]
    assert np.isnan(values[:, ~valid]).all()
    np.testing.assert_array_equal(values[:, valid], image[:, valid])


def test_a_sample_without_a_measurement_is_nan_though_its_pixel_is_data(tmp_path, write, draw):
    image, _ = draw(0, dtype="float32")
    image[1, 2, 3] = -9999
    path = write(tmp_path / "a.tif", image, nodata=-9999)
    values, valid = read_whole(path, choose_bands([path]))
    assert valid.all()
    assert np.argwhere(np.isnan(values)).tolist() == [[1, 2, 3]]


def test_an_internal_mask_hides_pixels(tmp_path, write, draw):
    image, label = draw(0)
    path = write(tmp_path / "a.tif", image, mask=label != 1)
    values, valid = read_whole(path, choose_bands([path]))
    np.testing.assert_array_equal(valid, label != 1)
    assert np.isnan(values[:, label == 1]).all()


def test_a_window_is_read_where_it_lies(tmp_path, write, draw, classes):
    image, label = draw(0)
    path = write(tmp_path / "a.tif", image)
    window = Window(7, 11, 5, 13)
    with Raster(path) as raster:
        values, _ = read_image(raster, choose_bands([path], (3, 1)), window)
    np.testing.assert_array_equal(values, image[[2, 0], 7:12, 11:24])
    ids = labels_of(write(tmp_path / "l.tif", label), classes, window)
    np.testing.assert_array_equal(ids, label[7:12, 11:24])


# Labels.


@pytest.mark.parametrize(
    ("bands", "height", "width", "found"),
    [(1, 40, 51, "1 of 40 x 51"), (1, 50, 40, "1 of 50 x 40"), (3, 40, 50, "3 of 40 x 50")],
    ids=["wider", "turned", "rgb"],
)
def test_a_label_that_is_not_one_band_of_the_size_of_its_image_is_refused(
    tmp_path, write, draw, bands, height, width, found
):
    image = write(tmp_path / "a.tif", draw(0)[0])
    path = write(tmp_path / "l.tif", np.zeros((bands, height, width), np.uint8))
    with Raster(path) as label, Raster(image) as raster:
        message = message_of(lambda: check_label(label, raster, LabelEncoding(num_classes=3)))
    expected = "must be one band of 40 x 50 pixels like its image, got "
    assert message == f"label {path} {expected}{found}"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_ids_of_any_dtype_are_read(tmp_path, write, draw, classes, dtype):
    label = draw(0)[1].astype(dtype)
    label[0] = 255
    found = labels_of(write(tmp_path / "l.tif", label), classes)
    np.testing.assert_array_equal(found, label)
    assert found.dtype == np.uint8


def test_the_numbers_of_a_palette_are_ids(tmp_path, write, draw, classes):
    label = draw(0)[1]
    palette = {i: (*rgb, 255) for i, rgb in enumerate(classes.colours)}
    path = write(tmp_path / "l.png", label, palette=palette)
    np.testing.assert_array_equal(labels_of(path, classes), label)


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        (3, "uint8"),
        (254, "uint8"),
        (256, "uint16"),
        (257, "int32"),
        (-1, "int16"),
        (1.5, "float32"),
        (-0.5, "float32"),
        (1e9, "float32"),
        (-9999.0, "float64"),
        (np.nan, "float32"),
    ],
)
def test_an_unknown_id_is_named_with_its_place_in_the_raster(
    tmp_path, write, draw, classes, wrong, dtype
):
    label = draw(0)[1].astype(dtype)
    label[9, 23] = label[30, 2] = wrong
    path = write(tmp_path / "l.tif", label)
    message = message_of(lambda: labels_of(path, classes, Window(5, 20, 30, 30)))
    assert f"label {path} holds class id {label[9, 23]} at row 9, column 23" in message
    assert "its data set has ids 0..2, and 255 is ignored" in message


@pytest.mark.parametrize(
    ("nodata", "dtype"),
    [(9, "uint8"), (255, "uint8"), (-1, "int16"), (-9999, "float32"), (np.nan, "float32")],
)
def test_the_nodata_value_of_a_label_is_ignored(tmp_path, write, draw, classes, nodata, dtype):
    label = draw(0)[1].astype(dtype)
    label[2, 3:6] = nodata
    found = labels_of(write(tmp_path / "l.tif", label, nodata=nodata), classes)
    expected = np.where(np.isnan(label) | (label == nodata), 255, label)
    np.testing.assert_array_equal(found, expected)
    assert (found == 255).sum() == 3


def test_a_class_id_that_is_declared_as_nodata_is_still_a_class(tmp_path, write, draw, classes):
    label = draw(0)[1]
    found = labels_of(write(tmp_path / "l.tif", label, nodata=0), classes)
    np.testing.assert_array_equal(found, label)


def test_values_of_a_table_stand_for_other_ids(tmp_path, write):
    stored = np.array([[0, 1, 2, 3, 255]], np.uint8)
    encoding = LabelEncoding(num_classes=3, values={0: 255, 1: 0, 2: 1, 3: 2, 255: 255})
    found = labels_of(write(tmp_path / "l.tif", stored), encoding)
    np.testing.assert_array_equal(found, [[255, 0, 1, 2, 255]])


RGB = LabelEncoding(num_classes=2, colours={(255, 255, 255): 0, (0, 0, 255): 1, (0, 0, 0): 255})


@pytest.mark.parametrize("bands", [3, 4])
def test_colours_stand_for_ids(tmp_path, write, bands):
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 0, 0], [0, 0, 255]], np.uint8)
    stored = np.full((bands, 1, 4), 255, np.uint8)
    stored[:3, 0] = colours.T
    found = labels_of(write(tmp_path / "l.png", stored), RGB)
    np.testing.assert_array_equal(found, [[0, 1, NODATA_ID, 1]])


def test_an_unknown_colour_is_named_with_its_place(tmp_path, write):
    stored = np.full((3, 6, 7), 255, np.uint8)
    stored[:, 4, 2] = (255, 204, 0)
    path = write(tmp_path / "l.tif", stored)
    message = message_of(lambda: labels_of(path, RGB))
    assert f"label {path} holds colour (255, 204, 0) at row 4, column 2" in message
    assert "the colours (255, 255, 255), (0, 0, 255), (0, 0, 0)" in message


def test_a_label_of_colours_must_have_three_bands(tmp_path, write, draw):
    image = write(tmp_path / "a.tif", draw(0)[0])
    path = write(tmp_path / "l.tif", np.zeros((40, 50), np.uint8))
    with Raster(path) as label, Raster(image) as raster:
        message = message_of(lambda: check_label(label, raster, RGB))
    assert "must be three bands (red, green, blue) of 40 x 50" in message
