"""Scenes made odd on purpose: where each is data is written by hand, next to how it is made."""

import json
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.windows import Window

from cvmh.errors import CvmhError
from cvmh.predict import predict_raster

HEIGHT, WIDTH = 70, 90
PAN = ("pan",)
RGB = ("red", "green", "blue")
UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000)}
# Not a round number among them: what is carried over must be every digit.
GCPS = [
    GroundControlPoint(row, column, 10 + column / 7e3, 50 - row / 3e3, 4.25)
    for row, column in [(0, 0), (0.5, 89.5), (70, 3), (69, 90)]
]
RPCS = RPC(
    height_off=89.1,
    height_scale=701.3,
    lat_off=49.2199,
    lat_scale=0.3093,
    line_den_coeff=[1.0] + [0.000922] * 19,
    line_num_coeff=[0.25] * 20,
    line_off=35.5,
    line_scale=35.25,
    long_off=-123.176,
    long_scale=0.4534,
    samp_den_coeff=[1.0] + [0.5] * 19,
    samp_num_coeff=[0.125] * 20,
    samp_off=45.5,
    samp_scale=45.25,
)
PLACES = {
    "nowhere": {},
    "by GCPs alone": {"gcps": GCPS, "crs": "EPSG:4326"},
    "by RPCs alone": {"rpcs": RPCS},
    "by RPCs and a grid": {"rpcs": RPCS, **UTM},
    "rotated": {"crs": UTM["crs"], "transform": UTM["transform"] @ Affine.rotation(27.3)},
    "sheared": {"crs": UTM["crs"], "transform": UTM["transform"] @ Affine.shear(11.1, -5.7)},
    "south up": {"crs": UTM["crs"], "transform": Affine(0.3, 0, 1 / 3, 0, 0.3, 2 / 3)},
    "in degrees": {"crs": "EPSG:4326", "transform": Affine(1e-3, 0, 15, 0, -2e-3, 49)},
    "in US feet": {"crs": "EPSG:2263", "transform": Affine(1, 0, 1e6, 0, -1, 2e5)},
    "with a CRS but no grid": {"crs": "EPSG:32633"},
}


@pytest.fixture(autouse=True)
def without_georeference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@pytest.fixture
def predict(make_bundle, tmp_path):
    """Return a function that predicts a scene and gives where its mask is not 255."""

    def run(scene, names=PAN, dtype="uint8", name="mask.tif", **options):
        path = tmp_path / name
        bundle = make_bundle(names, dtype=dtype, tile=32)
        report = predict_raster(scene, path, bundle, device="cpu", **options)
        with rasterio.open(path) as mask:
            ids = mask.read(1)
        assert report.pixels_valid == np.count_nonzero(ids != 255)
        # The ids of the six classes, and no other.
        assert ids[ids != 255].max(initial=0) < 6
        return ids != 255

    return run


@pytest.fixture
def refuse(predict, tmp_path):
    """Return a function that gives the one sentence by which a scene is refused."""

    def run(scene, *arguments, **options):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CvmhError) as caught:
            predict(scene, *arguments, **options)
        assert sorted(tmp_path.iterdir()) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def discs(height=HEIGHT, width=WIDTH, seed=0):
    """Return a pattern of blobs (height, width) that respects no tile or block."""
    y, x = np.mgrid[:height, :width]
    centres = np.random.default_rng(seed).uniform(0, [height, width, 18], (6, 3))
    return np.any([(y - r) ** 2 + (x - c) ** 2 < size**2 for r, c, size in centres], axis=0)


def facts(path):
    with rasterio.open(path) as dataset:
        points = [(p.row, p.col, p.x, p.y, p.z) for p in dataset.gcps[0]]
        rpcs = dataset.rpcs and dataset.rpcs.to_dict()
        crs = dataset.gcps[1] if points else dataset.crs
        return dataset.shape, crs, dataset.transform, points, rpcs


@pytest.mark.parametrize("place", PLACES)
def test_the_place_of_a_scene_is_carried_over_to_the_last_digit(
    make_scene, noise, predict, tmp_path, place
):
    scene = make_scene(noise(1, HEIGHT, WIDTH), **PLACES[place])
    assert predict(scene).all()
    assert facts(tmp_path / "mask.tif") == facts(scene)


@pytest.mark.parametrize("shape", [(1, 90), (90, 1), (1, 1), (2, 33)])
def test_scenes_of_hardly_any_pixels_are_predicted(make_scene, noise, predict, shape):
    array = noise(3, *shape)
    array[:, -1, -1] = 0
    is_data = np.ones(shape, bool)
    is_data[-1, -1] = False
    np.testing.assert_array_equal(predict(make_scene(array, nodata=0, **UTM), RGB), is_data)


DTYPES = {
    "int8": -128,
    "uint16": 65535,
    "int16": -9999,
    "uint32": 2**32 - 1,
    "int32": -(2**31),
    "int64": -9999,
    "uint64": 0,
    "float32": -3.4028234663852886e38,
    "float64": -1.7976931348623157e308,
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_number_is_predicted_and_its_nodata_found(make_scene, noise, predict, dtype):
    is_data = discs()
    array = np.where(is_data, noise(1, HEIGHT, WIDTH).clip(1, 120), 0).astype(dtype)
    array[~is_data[None]] = DTYPES[dtype]
    scene = make_scene(array, nodata=DTYPES[dtype], **UTM)
    np.testing.assert_array_equal(predict(scene, dtype=dtype), is_data)


def test_values_beyond_float32_are_no_data_only_where_declared(make_scene, predict, refuse):
    array = np.full((1, HEIGHT, WIDTH), 100.0)
    array[0, discs()] = -1e300
    scene = make_scene(array, **UTM)
    assert "must give finite scores" in refuse(scene, dtype="float64")
    np.testing.assert_array_equal(predict(scene, dtype="float64", nodata=-1e300), ~discs())


def test_nan_and_infinity_are_no_data_in_any_band(make_scene, noise, predict):
    array = noise(3, HEIGHT, WIDTH, dtype="float32")
    holes = np.stack([discs(seed=seed) for seed in (1, 2, 3)])
    for plane, hole, value in zip(array, holes, [np.nan, np.inf, -np.inf], strict=True):
        plane[hole] = value
    is_data = predict(make_scene(array, **UTM), RGB, "float32")
    np.testing.assert_array_equal(is_data, ~holes.any(axis=0))


def test_a_scene_without_any_data_is_255_and_nothing_else(make_scene, predict):
    assert not predict(make_scene(np.zeros((3, HEIGHT, WIDTH), "uint8"), nodata=0), RGB).any()


def test_a_palette_is_refused_unless_forced(make_scene, noise, predict, refuse):
    scene = make_scene(noise(1, HEIGHT, WIDTH) % 5, photometric="palette")
    with rasterio.open(scene, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 9, 9, 255) for value in range(5)})
    assert "got a palette" in refuse(scene)
    assert predict(scene, force=True).all()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused_even_if_forced(make_scene, refuse, dtype):
    scene = make_scene(np.ones((1, HEIGHT, WIDTH), dtype))
    message = refuse(scene, force=True)
    assert f"must hold real numbers, got {dtype}; write amplitude" in message


def test_alpha_and_nodata_both_hide(make_scene, noise, predict):
    array = noise(4, HEIGHT, WIDTH)
    black, clear = discs(seed=1), discs(seed=2)
    array[:3, black] = 0
    array[3] = np.where(clear, 0, 255)
    array[0, ~black] = 0
    scene = make_scene(array, nodata=0, photometric="RGB", alpha="YES", **UTM)
    np.testing.assert_array_equal(predict(scene, RGB), ~black & ~clear)


@pytest.mark.parametrize("is_internal", [True, False])
def test_a_mask_within_or_beside_the_scene_hides(make_scene, noise, predict, is_internal):
    is_data = discs()
    scene = make_scene(noise(3, HEIGHT, WIDTH), **UTM)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=is_internal),
        rasterio.open(scene, "r+") as dataset,
    ):
        dataset.write_mask(is_data)
    assert scene.with_name("scene.tif.msk").exists() != is_internal
    np.testing.assert_array_equal(predict(scene, RGB), is_data)


def vrt(path, sources, *, height=HEIGHT, width=WIDTH, nodata=None, alpha=None, grid=True):
    """Write a VRT: per band a list of (file, band, box taken, column and row of its place)."""
    bands = []
    for number, parts in enumerate(sources, start=1):
        value = nodata and nodata[number - 1]
        text = "" if value is None else f"<NoDataValue>{value}</NoDataValue>"
        if number == alpha:
            text += "<ColorInterp>Alpha</ColorInterp>"
        for file, band, (left, top, wide, high), (column, row) in parts:
            text += (
                f'<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>"
                f'<SrcRect xOff="{left}" yOff="{top}" xSize="{wide}" ySize="{high}"/>'
                f'<DstRect xOff="{column}" yOff="{row}" xSize="{wide}" ySize="{high}"/>'
                "</SimpleSource>"
            )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{number}">{text}</VRTRasterBand>')
    place = "<SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,5400000,0,-10</GeoTransform>"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"{place if grid else ''}{''.join(bands)}</VRTDataset>"
    )
    return path


FULL = (0, 0, WIDTH, HEIGHT)


def test_a_pixel_is_data_unless_each_used_band_has_its_own_nodata(make_scene, noise, predict):
    array = noise(3, HEIGHT, WIDTH)
    holes = np.stack([discs(seed=seed) for seed in (1, 2, 3)])
    values = (0, 255, 7)
    for plane, hole, value in zip(array, holes, values, strict=True):
        plane[plane == value] = 9
        plane[hole] = value
    file = make_scene(array).name
    folder = make_scene(array).parent
    sources = [[(file, band, FULL, (0, 0))] for band in (1, 2, 3)]
    scene = vrt(folder / "scene.vrt", sources, nodata=values)
    np.testing.assert_array_equal(predict(scene, RGB), ~holes.all(axis=0))
    # Of fewer bands, fewer need to agree; of bands that declare nothing, none ever do.
    found = predict(scene, ("red", "green"), bands=(3, 1), name="two.tif")
    np.testing.assert_array_equal(found, ~holes[[2, 0]].all(axis=0))
    partly = vrt(folder / "partly.vrt", sources, nodata=(0, None, 7))
    assert predict(partly, RGB, name="partly_mask.tif").all()
    given = predict(partly, RGB, name="given.tif", nodata=255)
    np.testing.assert_array_equal(given, ~holes.all(axis=0))


def test_a_missing_source_is_named_and_leaves_no_mask(make_scene, noise, refuse):
    here = make_scene(noise(1, HEIGHT, 40), "here.tif")
    parts = [
        ("here.tif", 1, (0, 0, 40, HEIGHT), (0, 0)),
        ("gone.tif", 1, (0, 0, 50, HEIGHT), (40, 0)),
    ]
    scene = vrt(here.with_name("scene.vrt"), [parts])
    message = refuse(scene)
    assert "scene.vrt needs the file" in message
    assert "gone.tif, which is missing" in message


def test_where_a_vrt_has_no_source_there_is_no_data_though_no_nodata_is_declared(
    make_scene, noise, predict
):
    # Blocks of zeros are data: the hole is known by its place and not by its value.
    array = noise(1, 30, 40)
    array[0, :10] = 0
    file = make_scene(array, "part.tif")
    places = [(3, 5), (45, 33)]
    parts = [("part.tif", 1, (0, 0, 40, 30), place) for place in places]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for column, row in places:
        expected[row : row + 30, column : column + 40] = True
    scene = vrt(file.with_name("scene.vrt"), [parts])
    np.testing.assert_array_equal(predict(scene), expected)


@pytest.fixture
def sparse(tmp_path):
    """Return a scene of 16 x 16 blocks, two of which are stored, and where they are."""
    path = tmp_path / "sparse.tif"
    profile = {"height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 16, "blockysize": 16, "interleave": "pixel", **UTM}
    is_stored = np.zeros((HEIGHT, WIDTH), bool)
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **profile) as dataset:
        for row, column in [(16, 32), (64, 80)]:
            high, wide = min(16, HEIGHT - row), min(16, WIDTH - column)
            values = np.random.default_rng(row).integers(0, 255, (3, high, wide), "uint8")
            dataset.write(values, window=Window(column, row, wide, high))
            is_stored[row : row + 16, column : column + 16] = True
    return path, is_stored


def test_what_a_sparse_file_never_stored_is_no_data(sparse, predict):
    path, is_stored = sparse
    np.testing.assert_array_equal(predict(path, RGB), is_stored)


def test_a_sparse_scene_has_the_same_mask_through_a_vrt_and_cropped(sparse, predict, tmp_path):
    path, is_stored = sparse
    sources = [[(path.name, band, FULL, (0, 0))] for band in (1, 2, 3)]
    whole = predict(vrt(tmp_path / "whole.vrt", sources), RGB)
    np.testing.assert_array_equal(whole, is_stored)
    box = (20, 10, 60, 55)
    sources = [[(path.name, band, box, (0, 0))] for band in (1, 2, 3)]
    scene = vrt(tmp_path / "crop.vrt", sources, height=55, width=60)
    np.testing.assert_array_equal(predict(scene, RGB, name="crop.tif"), is_stored[10:65, 20:80])


def write_area(path, rows, columns):
    """Write the rectangle of some rows and columns of the UTM scene as GeoJSON in its CRS."""
    (top, bottom), (left, right) = rows, columns
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    ring = [[500_000 + 10 * column, 5_400_000 - 10 * row] for column, row in corners]
    area = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
        "features": [
            {
                "type": "Feature",
                "properties": {},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        ],
    }
    path.write_text(json.dumps(area))
    return path


def test_everything_that_hides_hides_together(tmp_path, predict):
    """Sparse blocks, alpha, per-pixel nodata, a mask file and an area, each in another place."""
    path = tmp_path / "scene.tif"
    profile = {"height": HEIGHT, "width": WIDTH, "count": 4, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 16, "blockysize": 16, "nodata": 0, "interleave": "pixel", **UTM}
    values = np.random.default_rng(0).integers(1, 250, (4, HEIGHT, WIDTH), "uint8")
    values[3] = np.where(discs(seed=4), 0, 255)
    values[:3, discs(seed=5)] = 0
    is_data = ~discs(seed=4) & ~discs(seed=5)
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **profile) as dataset:
        dataset.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]
        for row in range(0, HEIGHT, 16):
            # The last blocks of each row are left out.
            dataset.write(
                values[:, row : row + 16, :64], window=Window(0, row, 64, min(16, HEIGHT - row))
            )
    is_data[:, 64:] = False
    area = write_area(tmp_path / "area.geojson", (7, 60), (13, 80))
    is_inside = np.zeros((HEIGHT, WIDTH), bool)
    is_inside[7:60, 13:80] = True
    assert 0.2 < (is_data & is_inside).mean() < 0.5
    found = predict(path, RGB, aoi=area)
    np.testing.assert_array_equal(found, is_data & is_inside)


@pytest.mark.parametrize("tile", [16, 33, 90])
def test_what_is_data_does_not_depend_on_the_tiles(make_bundle, make_scene, noise, tmp_path, tile):
    is_data = discs(seed=7)
    array = noise(3, HEIGHT, WIDTH) * is_data
    scene = make_scene(array, nodata=0, tiled=True, blockxsize=32, blockysize=16, **UTM)
    for overlap in (0.0, 0.5):
        path = tmp_path / f"{overlap}.tif"
        predict_raster(scene, path, make_bundle(), tile=tile, overlap=overlap, device="cpu")
        with rasterio.open(path) as mask:
            np.testing.assert_array_equal(mask.read(1) != 255, is_data)
