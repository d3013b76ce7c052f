import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from cvmh.errors import RasterError
from cvmh.geo.area import Area
from cvmh.geo.coverage import Coverage
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.geo.validity import Validity, find_alpha

RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
ALL = Window(0, 0, 2, 3)


def validity_of(path, bands, window=ALL, nodata=None):
    with Raster(path) as raster:
        rule = Validity(raster, bands, alpha=find_alpha(raster, bands), nodata=nodata)
        return rule.read(window, raster.read(window, bands)).tolist()


def bands_of(*planes, dtype="uint8"):
    return np.array(planes, dtype=dtype).reshape(len(planes), 2, 3)


def test_a_pixel_is_nodata_only_if_all_used_bands_are(make_raster):
    path = make_raster(array=bands_of([0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 1, 1]), nodata=0)
    assert validity_of(path, [1, 2]) == [[False, True, True], [False, True, True]]
    assert validity_of(path, [1]) == [[False, False, True], [False, False, True]]


def test_a_value_that_is_declared_nowhere_is_data(make_raster):
    path = make_raster(array=bands_of([-9999, 0, 1, 2, 3, 4], dtype="int16"))
    assert validity_of(path, [1]) == [[True] * 3] * 2


def test_a_value_that_the_user_names_is_nodata_where_none_is_declared(make_raster):
    path = make_raster(array=bands_of([7, 0, 7, 2, 3, 7], [7, 7, 7, 2, 3, 4], dtype="int16"))
    assert validity_of(path, [1, 2], nodata=7) == [[False, True, False], [True, True, True]]
    declared = make_raster("declared.tif", bands_of([7, 0, 7, 2, 3, 7]), nodata=0)
    assert validity_of(declared, [1], nodata=7) == [[True, False, True], [True] * 3]


@pytest.mark.parametrize("nodata", [300, -1, 0.5, float("nan")])
def test_a_value_that_no_pixel_can_have_is_refused(make_raster, nodata):
    path = make_raster(array=bands_of([0, 1, 2, 3, 4, 5]))
    with pytest.raises(RasterError, match=rf"nodata {nodata:g} cannot be a pixel of .*scene\.tif"):
        validity_of(path, [1], nodata=nodata)


@pytest.mark.parametrize("nodata", [None, np.nan])
def test_nan_and_infinity_in_any_used_band_are_no_data(make_raster, nodata):
    array = bands_of([np.nan, 1, np.inf, 2, 3, 4], [1, 1, 1, np.nan, 1, 1], dtype="float32")
    path = make_raster(array=array, nodata=nodata)
    assert validity_of(path, [1, 2]) == [[False, True, False], [False, True, True]]
    assert validity_of(path, [1]) == [[False, True, False], [True, True, True]]


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", -3.4028234663852886e38), ("float64", -1e300), ("int16", -1)]
)
def test_extreme_nodata_values_match(make_raster, dtype, nodata):
    path = make_raster(array=bands_of([nodata, 1, 2, 3, 4, 5], dtype=dtype), nodata=nodata)
    assert validity_of(path, [1]) == [[False, True, True], [True, True, True]]


def test_a_sample_of_nodata_is_found_in_floats_only(make_raster):
    array = bands_of([-9, 1, -9, 2, 3, 4], [1, 1, np.nan, 1, 1, 1], dtype="float32")
    with Raster(make_raster(array=array, nodata=-9)) as raster:
        rule = Validity(raster, [1, 2], alpha=None)
        assert rule.read(ALL, array).tolist() == [[True, True, False], [True] * 3]
        missing = rule.find_missing(array)
        assert np.argwhere(missing).tolist() == [[0, 0, 0], [0, 0, 2]]
        assert rule.find_missing(array[:, :, 1:2]) is None
    with Raster(make_raster("b.tif", bands_of([0, 1, 2, 3, 4, 5]), nodata=0)) as raster:
        assert Validity(raster, [1], alpha=None).find_missing(raster.read()) is None


def test_a_true_alpha_band_hides_where_it_is_zero(make_raster):
    planes = [[5] * 6] * 3
    path = make_raster(array=bands_of(*planes, [0, 255, 255, 0, 255, 255]), colours=RGBA)
    assert validity_of(path, [1, 2, 3]) == [[False, True, True]] * 2
    # Chosen as data, it hides nothing.
    assert validity_of(path, [1, 2, 3, 4]) == [[True] * 3] * 2


def test_near_infrared_tagged_as_alpha_is_data(make_raster):
    planes = [[5] * 6] * 3
    path = make_raster(array=bands_of(*planes, [0, 90, 255, 13, 200, 120]), colours=RGBA)
    with Raster(path) as raster:
        assert find_alpha(raster) is None
    assert validity_of(path, [1, 2, 3]) == [[True] * 3] * 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_judged_by_its_values_over_a_large_raster(make_raster, dtype):
    array = np.zeros((2, 1500, 2000), dtype)
    array[1, :, 700:] = np.iinfo(dtype).max
    # A soft edge does not make it data.
    array[1, :, 699] = 100
    colours = [ColorInterp.gray, ColorInterp.alpha]
    with Raster(make_raster(array=array, colours=colours)) as raster:
        assert find_alpha(raster) == 2
    array[1] = np.arange(2000) % 250
    with Raster(make_raster("b.tif", array=array, colours=colours)) as raster:
        assert find_alpha(raster) is None


def test_an_internal_mask_counts(make_raster):
    mask = np.array([[0, 255, 255], [255, 255, 0]], "uint8")
    path = make_raster(array=bands_of([1, 2, 3, 4, 5, 6]), mask=mask)
    assert validity_of(path, [1]) == [[False, True, True], [True, True, False]]
    assert validity_of(path, [1], Window(1, 1, 1, 2)) == [[True, False]]


def test_area_and_coverage_hide_what_lies_outside_of_either(make_raster):
    with Raster(make_raster(array=bands_of([1, 2, 0, 4, 5, 6]), nodata=0)) as raster:
        area = Area([shapely.box(0, 0, 3, 1)], 2, 3)
        coverage = Coverage(2, 3, np.array([[0, 2, 1, 3]]))
        rule = Validity(raster, [1], alpha=None, area=area, coverage=coverage)
        assert rule.read_outline(ALL).tolist() == [[False, True, True], [False] * 3]
        assert rule.read(ALL, raster.read()).tolist() == [[False, True, False], [False] * 3]
        assert rule.meets([0, 300], [2, 400], [0, 0], [3, 3]).tolist() == [True, False]


def test_the_outline_is_known_before_the_bands_are_read(make_raster, monkeypatch):
    array = bands_of([1, 2, 3, 4, 5, 6], [0, 255, 255, 0, 0, 0])
    colours = [ColorInterp.gray, ColorInterp.alpha]
    mask = np.array([[255, 255, 0], [0, 255, 0]], "uint8")
    with Raster(make_raster(array=array, colours=colours, mask=mask)) as raster:
        read = raster.read
        seen = []
        monkeypatch.setattr(raster, "read", lambda w, bands: seen.append(bands) or read(w, bands))
        rule = Validity(raster, [1], alpha=2)
        outline = rule.read_outline(ALL)
        assert outline.tolist() == [[False, True, False], [False] * 3]
        assert seen == [[2]]
        assert rule.read(ALL, read(ALL, [1]), outline).tolist() == outline.tolist()
        assert seen == [[2]]


def test_a_scene_that_is_data_everywhere_says_so(make_raster):
    array = bands_of([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    for number, (profile, dtype, expected) in enumerate(
        [({}, "uint8", True), ({"nodata": 0}, "uint8", False), ({}, "float32", False)]
    ):
        with Raster(make_raster(f"{number}.tif", array.astype(dtype), **profile)) as raster:
            rule = Validity(raster, [1, 2], alpha=None)
            assert rule.is_everywhere == expected
            assert not rule.has_outline
    with Raster(make_raster("mask.tif", array, mask=np.ones((2, 3), "uint8"))) as raster:
        rule = Validity(raster, [1], alpha=None)
        assert rule.has_outline
        assert not rule.is_everywhere


@given(st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "int16", "float32"]))
def test_the_rule_agrees_with_a_loop_over_pixels(seed, dtype):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 3, (3, 4, 5)).astype(dtype)
    if dtype == "float32":
        pixels[rng.random(pixels.shape) < 0.1] = np.nan
    declared = tuple(rng.choice([0.0, 1.0, None], 3, p=[0.5, 0.4, 0.1]))
    outline = rng.random((4, 5)) < 0.7
    rule = Validity(_Declared(dtype, declared), [1, 2, 3], alpha=None)
    expected = [
        [
            bool(outline[y, x])
            and any(value != own for value, own in zip(pixels[:, y, x], declared, strict=True))
            and not any(value != value for value in pixels[:, y, x].tolist())
            for x in range(5)
        ]
        for y in range(4)
    ]
    assert rule.judge(pixels, outline.copy()).tolist() == expected


class _Declared:
    """The little of a raster that the rule for values asks for."""

    has_mask = False

    def __init__(self, dtype, nodata):
        self.dtype, self.nodata = dtype, nodata

    def dtype_of(self, bands):
        return self.dtype
