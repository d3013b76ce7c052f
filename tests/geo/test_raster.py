import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio._env import get_gdal_config, set_gdal_config
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from cvmh.errors import OutputError, RasterError
from cvmh.geo.raster import Raster, limit_cache, write_raster
from cvmh.geo.tiling import Window

NORTH_UP = Affine(0.5, 0, 500000, 0, -0.5, 5000000)


def test_facts_of_a_raster_are_those_of_the_file(make_raster):
    path = make_raster(crs="EPSG:32633", transform=NORTH_UP, nodata=7)
    with Raster(path) as raster:
        assert raster.shape == (2, 9, 7)
        assert raster.dtypes == ("uint8", "uint8")
        assert raster.nodata == (7, 7)
        assert raster.crs == CRS.from_epsg(32633)
        assert raster.transform == NORTH_UP
        assert (raster.gcps, raster.rpcs, raster.tagged_alpha) == ((), None, None)
        assert not raster.has_mask
        assert path in raster.files


def test_a_window_is_read_in_the_native_dtype_and_the_asked_order_of_bands(make_raster):
    array = np.arange(3 * 5 * 6, dtype="int16").reshape(3, 5, 6)
    with Raster(str(make_raster(array=array))) as raster:
        found = raster.read(Window(1, 2, 3, 4), [3, 1, 1])
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, array[[2, 0, 0], 1:4, 2:6])


def test_band_names_come_from_descriptions_then_colours_then_numbers(make_raster):
    path = make_raster(
        array=np.zeros((4, 3, 3), "uint8"),
        colours=[ColorInterp.red, ColorInterp.nir, ColorInterp.undefined, ColorInterp.alpha],
        names=["B04", None, None, None],
    )
    with Raster(path) as raster:
        assert raster.band_names == ("B04", "nir", "band_3", "band_4")


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32633", NORTH_UP, 0.5),
        ("EPSG:32633", NORTH_UP @ Affine.rotation(27), 0.5),
        # US survey feet.
        ("EPSG:2263", Affine(10, 0, 984250, 0, -10, 200000), 3.048),
        # Web Mercator at 60 degrees north: a metre on the map is about half a metre.
        ("EPSG:3857", Affine(1, 0, 0, 0, -1, 8399737.9), 0.5),
        # One second of arc at the equator.
        ("EPSG:4326", Affine(1 / 3600, 0, 10, 0, -1 / 3600, 0), 30.8),
        (None, NORTH_UP, None),
        ("EPSG:32633", None, None),
        ('LOCAL_CS["site",UNIT["metre",1]]', NORTH_UP, None),
    ],
)
def test_ground_sampling_distance_is_in_metres_whatever_the_crs(
    make_raster, crs, transform, expected
):
    with Raster(make_raster(crs=crs, transform=transform)) as raster:
        assert raster.gsd == (expected and pytest.approx(expected, rel=0.01))


def test_ground_sampling_distance_follows_gcps(make_raster):
    corners = [(0, 0), (0, 7), (9, 0), (9, 7)]
    gcps = [
        rasterio.control.GroundControlPoint(row, column, *(NORTH_UP @ (column, row)))
        for row, column in corners
    ]
    with Raster(make_raster(gcps=gcps, crs="EPSG:32633")) as raster:
        assert raster.gsd == pytest.approx(0.5, rel=0.001)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-LFS pointer"),
        (b"hello, this is no raster", "not a raster"),
    ],
)
def test_what_is_no_raster_is_named_in_one_line(tmp_path, content, fragment):
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RasterError, match=fragment) as caught:
        Raster(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_dead_url_are_refused(tmp_path):
    with pytest.raises(RasterError, match="is a folder"):
        Raster(tmp_path)
    with pytest.raises(RasterError, match="cannot be opened"):
        Raster("/vsizip/nowhere.zip/a.tif")


def test_a_truncated_raster_opens_and_the_failing_window_is_named(make_raster):
    array = np.random.default_rng(0).integers(0, 255, (1, 256, 256), dtype="uint8")
    path = make_raster(array=array, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(path.read_bytes()[:40000])
    with Raster(path) as raster:
        np.testing.assert_array_equal(raster.read(Window(0, 0, 64, 64))[0], array[0, :64, :64])
        with pytest.raises(RasterError, match=r"cut off: rows 192\.\.256, columns 64\.\.128"):
            raster.read(Window(192, 64, 64, 64))


VRT = """<VRTDataset rasterXSize="7" rasterYSize="9">{}</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="{}" band="{}"><SimpleSource>
<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand>"""


def test_a_vrt_with_a_missing_source_names_it(make_raster, tmp_path):
    make_raster("there.tif")
    bands = VRT_BAND.format("Byte", 1, "there.tif") + VRT_BAND.format("Byte", 2, "gone.tif")
    (tmp_path / "a.vrt").write_text(VRT.format(bands))
    with Raster(tmp_path / "a.vrt") as raster:
        assert tmp_path / "there.tif" in raster.files
        with pytest.raises(RasterError, match=r"needs the file .*gone\.tif, which is missing"):
            raster.read()


def test_bands_of_several_dtypes_are_refused_only_when_used_together(make_raster, tmp_path):
    make_raster("there.tif")
    bands = VRT_BAND.format("Byte", 1, "there.tif") + VRT_BAND.format("Int16", 2, "there.tif")
    (tmp_path / "a.vrt").write_text(VRT.format(bands))
    with Raster(tmp_path / "a.vrt") as raster:
        with pytest.raises(RasterError, match="band 1 uint8, band 2 int16"):
            raster.read()
        assert raster.read(bands=[2]).dtype == np.int16


def test_complex_numbers_are_refused(make_raster):
    with (
        Raster(make_raster(array=np.zeros((1, 3, 3), "complex64"))) as raster,
        pytest.raises(RasterError, match="real numbers, got complex64"),
    ):
        raster.read()


def test_a_written_raster_reads_back_with_names_and_without_false_alpha(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (4, 5, 6), dtype="uint8")
    path = tmp_path / "a.tif"
    names = ("red", "green", "blue", "nir")
    write_raster(path, array, crs="EPSG:32633", transform=NORTH_UP, nodata=0, band_names=names)
    with Raster(path) as raster:
        assert raster.band_names == names
        assert raster.tagged_alpha is None
        assert (raster.crs, raster.transform) == (CRS.from_epsg(32633), NORTH_UP)
        np.testing.assert_array_equal(raster.read(), array)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_labels_are_written_with_a_colour_table(tmp_path):
    path = tmp_path / "labels.tif"
    write_raster(path, np.ones((4, 4), "uint8"), colours=[(1, 2, 3), (4, 5, 6)])
    with Raster(path) as raster:
        assert raster.is_palette
        assert raster.shape == (1, 4, 4)


def test_an_unwritable_place_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"missing/a\.tif cannot be written"):
        write_raster(tmp_path / "missing" / "a.tif", np.ones((4, 4), "uint8"))


def test_a_limit_of_the_cache_lowers_it_and_never_raises_it():
    before = get_gdal_config("GDAL_CACHEMAX")
    try:
        limit_cache(before - 1)
        assert get_gdal_config("GDAL_CACHEMAX") == before - 1
        limit_cache(before + 1)
        assert get_gdal_config("GDAL_CACHEMAX") == before - 1
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)
