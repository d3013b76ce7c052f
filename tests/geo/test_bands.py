import numpy as np
import pytest
from rasterio.enums import ColorInterp

from cvmh.errors import RasterError
from cvmh.geo.bands import match_bands
from cvmh.geo.raster import Raster

RGB = ("red", "green", "blue")
RGBN = (*RGB, "nir")


@pytest.fixture
def match(make_raster):
    def run(wanted, descriptions, explicit=None, alpha=None):
        """Match against bands of these names, None for unnamed, the last tagged as alpha or not."""
        array = np.zeros((len(descriptions), 4, 4), "uint8")
        colours = [ColorInterp.undefined] * len(descriptions)
        if alpha is not None:
            array[-1] = alpha
            colours[-1] = ColorInterp.alpha
        path = make_raster(
            array=array, photometric="MINISBLACK", colours=colours, names=descriptions
        )
        with Raster(path) as raster:
            return match_bands(wanted, raster, explicit=explicit)

    return run


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        (RGB, ("blue", "green", "red"), (3, 2, 1)),
        (RGB, ("Blue", "GREEN", "Red", "nir"), (3, 2, 1)),
        (RGB, (None, None, None), (1, 2, 3)),
        (RGB, ("band 1", "band 2", "band 3"), (1, 2, 3)),
        (RGBN, ("red", "green", "blue", None), (1, 2, 3, 4)),
        (RGBN, (None, "red", "green", "blue"), (2, 3, 4, 1)),
        (RGBN, ("red", "green", "blue", "near-infrared"), (1, 2, 3, 4)),
        (("band_1", "band_2", "band_3"), RGB, (1, 2, 3)),
        (("vv", "vh"), ("VH", "VV"), (2, 1)),
        (("B08", "B04"), ("B02", "B03", "B04", "B08"), (4, 3)),
    ],
)
def test_bands_are_found_by_name_then_filled_by_position(match, wanted, names, expected):
    assert match(wanted, names) == expected


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (RGBN, ("red", "green", "blue", "swir")),
        (RGB, ("B02", "B03", "B04")),
        (("nir",), ("red",)),
        (RGB, (None, None)),
        (RGB, (None,) * 4),
        (RGBN, ("red", "green", "blue")),
        (RGBN, ("red", "green", "blue", None, None)),
    ],
)
def test_a_doubtful_choice_is_refused_and_the_way_out_named(match, wanted, names):
    with pytest.raises(
        RasterError, match=rf"needs {len(wanted)} bands.*got {len(names)} .*--bands"
    ):
        match(wanted, names)


def test_a_true_alpha_band_is_no_data_band_but_a_false_one_is(match):
    assert match(RGB, (None,) * 4, alpha=255) == (1, 2, 3)
    assert match(RGBN, (None,) * 4, alpha=77) == (1, 2, 3, 4)
    with pytest.raises(RasterError, match="got 3 "):
        match(RGBN, (None,) * 4, alpha=255)


def test_an_explicit_list_wins_and_may_repeat(match):
    assert match(RGB, ("red", "green", "blue"), explicit=(3, 3, 1)) == (3, 3, 1)
    assert match(RGBN, (None,) * 4, explicit=(1, 2, 3, 4), alpha=255) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("explicit", "fragment"),
    [((1, 2), "must name 3 bands"), ((1, 2, 4), "from 1 to 3"), ((0, 1, 2), "from 1 to 3")],
)
def test_a_wrong_explicit_list_is_refused(match, explicit, fragment):
    with pytest.raises(RasterError, match=fragment):
        match(RGB, RGB, explicit=explicit)
