import io

import numpy as np
import pytest
from PIL import Image

from cvmh.page import encode_png


def decoded(content, num_bands=3):
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[num_bands]
    return np.asarray(Image.open(io.BytesIO(content)).convert(mode))


@pytest.mark.parametrize("bands", [None, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (300, 1), (33, 20)])
def test_another_decoder_reads_the_same_pixels(bands, size):
    shape = size if bands is None else (*size, bands)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(pixels), bands or 1).reshape(shape), pixels)


@pytest.mark.parametrize("slope", [(1, 0), (0, 1), (1, 1), (3, -2)])
def test_smooth_pictures_come_back_exactly_and_shrink(slope):
    row, column = np.indices((90, 110))
    ramp = slope[0] * row + slope[1] * column
    pixels = np.stack([ramp, row + 2 * column, 250 - column], axis=-1).astype(np.uint8)
    content = encode_png(pixels)
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    np.testing.assert_array_equal(decoded(content), pixels)
    assert len(content) < pixels.size / 20


def test_pictures_of_few_colours_are_written_with_a_palette():
    ids = np.random.default_rng(1).integers(0, 256, (64, 64))
    colours = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    content = encode_png(colours[ids])
    assert Image.open(io.BytesIO(content)).mode == "P"
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(shown, colours[ids])
    assert len(content) < 64 * 64 + 1024


def test_the_same_pixels_give_the_same_bytes():
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert encode_png(pixels) == encode_png(pixels.copy())
