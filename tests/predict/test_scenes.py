"""Every real raster of CVMH_TEST_DATA/scenes, the ordinary and the odd, as a scene to predict."""

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cvmh.errors import CvmhError
from cvmh.predict import predict_raster

DATA = os.environ.get("CVMH_TEST_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters"),
]
SCENES = Path(DATA or "") / "scenes"

RGB = ("red", "green", "blue")
RGBN = (*RGB, "nir")
SAR = ("vv", "vh", "hv", "hh")
PAN = ("pan",)
TEN = tuple(f"band_{number}" for number in range(1, 11))


# Where a scene is data, written by hand with rasterio: dataset -> (height, width), true if data.
def everywhere(dataset):
    return np.ones(dataset.shape, bool)


def unless_all_are(value):
    return lambda dataset: (dataset.read() != value).any(axis=0)


def where_band_4_is_opaque(dataset):
    return dataset.read(4) > 0


def where_the_mask_says(dataset):
    return dataset.read_masks(1) == 255


def where_all_are_numbers(dataset):
    return ~np.isnan(dataset.read()).any(axis=0)


# name: (bands of the network, bands taken from the scene, where it is data)
PREDICTED = {
    "RGB.byte.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "RGBA.byte.tif": (RGB, (1, 2, 3), where_band_4_is_opaque),
    "RGB2.byte.tif": (RGB, (1, 2, 3), where_the_mask_says),
    "RGB2.byte.tif.msk": (PAN, (1,), everywhere),
    "RGB.byte.gcp.vrt": (RGB, (1, 2, 3), unless_all_are(0)),
    "RGB.byte.rpc.vrt": (RGB, (1, 2, 3), unless_all_are(0)),
    "all-nodata.tif": (RGBN, (3, 2, 1, 4), unless_all_are(0)),
    "cogeo.tif": (RGB, (1, 2, 3), where_the_mask_says),
    "goes.tif": (RGB, (1, 2, 3), where_the_mask_says),
    "shade.tif": (PAN, (1,), unless_all_are(255)),
    "world.rgb.tif": (RGB, (1, 2, 3), everywhere),
    "rotated.tif": (PAN, (1,), everywhere),
    "float_nan.tif": (PAN, (1,), where_all_are_numbers),
    "float32.tif": (PAN, (1,), everywhere),
    "389225main_sw_1965_1024.jpg": (RGB, (1, 2, 3), everywhere),
    "rgb16.tif": (RGB, (1, 2, 3), everywhere),
    "rgba8.tif": (RGB, (1, 2, 3), where_band_4_is_opaque),
    "rgb.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "image_missing_nodata.tif": (PAN, (1,), everywhere),
    "B09.tif": (PAN, (1,), unless_all_are(0)),
    "segmentation_test_0_input.tif": (TEN, tuple(range(1, 11)), unless_all_are(-9999)),
    "sar_masked.tif": (SAR, (1, 2, 3, 4), where_all_are_numbers),
    "au-3577-rotated.tif": (PAN, (1,), where_all_are_numbers),
    "au-gcp.tif": (PAN, (1,), unless_all_are(0)),
    "2018_SJER_3_252000_4107000_image_477.tif": (RGB, (1, 2, 3), unless_all_are(255)),
    "naip_dev_chip_nir_as_alpha.tif": (RGBN, (1, 2, 3, 4), everywhere),
    "naip_dev_mosaic_rgbn.tif": (RGBN, (1, 2, 3, 4), unless_all_are(0)),
    "derived_rotated27_rgb_dev.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "derived_1row_landsat.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "derived_1col_landsat.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "derived_1px_landsat.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    "derived_jpeg_cog_internal_mask.tif": (RGB, (1, 2, 3), where_the_mask_says),
    "derived_gcp_only_rgb.tif": (RGB, (1, 2, 3), unless_all_are(0)),
    # Nothing names its bands, so they count as red, green, blue; --bands 3,2,1 would say it.
    "derived_bandswap_bgr.vrt": (RGB, (1, 2, 3), everywhere),
}
# name: (bands of the network, what the one line of the error says)
REFUSED = {
    "corrupt.tif": (RGB, "is damaged or cut off: rows "),
    "derived_truncated_cog.tif": (RGB, "is damaged or cut off: rows "),
    "derived_truncated_header.tif": (RGB, "its header is damaged"),
    "derived_empty.tif": (RGB, "is empty (0 bytes)"),
    "amsterdam_patches_A.tif": (RGB, "git-LFS pointer"),
    "derived_missing_source.vrt": (("red", "green"), "does_not_exist.tif, which is missing"),
    "image_colormap.tif": (PAN, "got a palette"),
}


def listed():
    with (SCENES / "manifest.csv").open(encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path)


def test_every_raster_of_the_folder_has_an_expected_outcome():
    assert set(listed()) == set(PREDICTED) | set(REFUSED)


@pytest.mark.parametrize("name", PREDICTED)
def test_the_mask_lies_on_the_grid_of_the_scene_and_is_255_exactly_without_data(
    make_bundle, tmp_path, name
):
    band_names, bands, find_valid = PREDICTED[name]
    bundle = make_bundle(band_names, dtype=listed()[name]["dtype"], tile=256)
    report = predict_raster(SCENES / name, tmp_path / "mask.tif", bundle, overlap=0.1)
    assert report.bands == bands
    with opened(SCENES / name) as scene, opened(tmp_path / "mask.tif") as mask:
        assert mask.shape == scene.shape
        assert mask.transform == scene.transform
        # A GeoTIFF holds one CRS; where there are GCPs it is theirs.
        assert mask.gcps[1] == scene.gcps[1]
        assert scene.gcps[0] or mask.crs == scene.crs
        points = [[(p.row, p.col, p.x, p.y, p.z) for p in d.gcps[0]] for d in (mask, scene)]
        assert points[0] == points[1]
        assert_same_rpcs(mask.rpcs, scene.rpcs)
        np.testing.assert_array_equal(mask.read(1) != 255, find_valid(scene))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "mask.qml",
        "mask.tif",
        "mask.tif.aux.xml",
    ]


def assert_same_rpcs(found, expected):
    if expected is None:
        assert found is None
        return
    # GDAL prints what it reads from a GeoTIFF with 15 digits.
    for key, value in expected.to_dict().items():
        assert found.to_dict()[key] == pytest.approx(value, rel=1e-14), key


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_scene_gives_one_clear_line_and_no_mask(make_bundle, tmp_path, name):
    band_names, fragment = REFUSED[name]
    with pytest.raises(CvmhError) as caught:
        predict_raster(SCENES / name, tmp_path / "mask.tif", make_bundle(band_names, tile=256))
    assert fragment in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_near_infrared_may_be_left_out_of_a_chip_that_tags_it_as_alpha(make_bundle, tmp_path):
    name = "naip_dev_chip_nir_as_alpha.tif"
    report = predict_raster(SCENES / name, tmp_path / "mask.tif", make_bundle(RGB))
    assert report.bands == (1, 2, 3)
    assert report.pixels_valid == report.pixels


def test_a_scene_of_other_units_is_refused_until_forced(make_bundle, tmp_path):
    with pytest.raises(CvmhError, match=r"got uint16; .*--force"):
        predict_raster(SCENES / "rgb16.tif", tmp_path / "mask.tif", make_bundle(RGB))
    predict_raster(SCENES / "rgb16.tif", tmp_path / "mask.tif", make_bundle(RGB), force=True)
    with pytest.raises(CvmhError, match="palette"):
        predict_raster(SCENES / "image_colormap.tif", tmp_path / "b.tif", make_bundle(PAN))
    predict_raster(SCENES / "image_colormap.tif", tmp_path / "b.tif", make_bundle(PAN), force=True)
