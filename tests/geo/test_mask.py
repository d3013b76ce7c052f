import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from cvmh.classes import ISPRS
from cvmh.errors import OutputError
from cvmh.geo import cog as cog_module
from cvmh.geo import writer as writer_module
from cvmh.geo.mask import MaskWriter
from cvmh.geo.output import sidecars
from cvmh.geo.raster import Raster

ROTATED = Affine(0.1, 0, 600000.123456789, 0, -0.1, 4.2e6) @ Affine.rotation(27)
GEOSTATIONARY = CRS.from_string("+proj=geos +h=35785831 +lon_0=-75 +sweep=x +datum=WGS84")
# GeoTIFF keys cannot express it; GDAL keeps it in an .aux.xml.
ROTATED_POLE = CRS.from_string(
    "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +ellps=WGS84"
)
GCPS = [
    GroundControlPoint(row, column, 10 + column / 7e3, 50 - row / 3e3, 4.25)
    for row, column in [(0, 0), (0.5, 6.5), (9, 7)]
]
RPCS = RPC(
    height_off=89.0,
    height_scale=701.0,
    lat_off=49.2199,
    lat_scale=0.3093,
    line_den_coeff=[1.0] + [0.000922] * 19,
    line_num_coeff=[0.25] * 20,
    line_off=5760.0,
    line_scale=5761.0,
    long_off=-123.176,
    long_scale=0.4534,
    samp_den_coeff=[1.0] + [0.5] * 19,
    samp_num_coeff=[0.125] * 20,
    samp_off=3724.0,
    samp_scale=3725.0,
    err_bias=0.5,
    err_rand=0.25,
)


def write(path, scene, ids=None, **options):
    with Raster(scene) as raster:
        if ids is None:
            ids = np.zeros((raster.height, raster.width), "uint8")
        with MaskWriter(path, raster, ISPRS, **options) as writer:
            for row in range(0, len(ids), 100):
                writer.write_rows(ids[row : row + 100])


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


@pytest.mark.parametrize(
    "georeference",
    [
        {},
        {"crs": "EPSG:32633", "transform": ROTATED},
        {"crs": "EPSG:4326", "transform": Affine(1 / 3, 0, -180, 0, 1 / 7, -90)},
        {"crs": GEOSTATIONARY, "transform": Affine(2004.017, 0, -5e6, 0, -2004.017, 4e6)},
        {"crs": ROTATED_POLE, "transform": ROTATED},
        {"crs": "EPSG:32633"},
        {"transform": ROTATED},
        {"gcps": GCPS, "crs": "EPSG:4326"},
        {"rpcs": RPCS},
    ],
    ids=lambda value: "+".join(value) or "none",
)
@pytest.mark.parametrize("shape", [(9, 7), (1, 1), (3, 1100)])
def test_a_mask_lies_exactly_where_its_scene_lies(make_raster, tmp_path, georeference, shape):
    scene = make_raster(array=np.ones((1, *shape), "uint8"), **georeference)
    write(tmp_path / "mask.tif", scene)
    with opened(scene) as expected, opened(tmp_path / "mask.tif") as mask:
        assert mask.shape == shape
        assert mask.crs == expected.crs
        assert mask.transform == expected.transform
        points = [[(p.row, p.col, p.x, p.y, p.z) for p in d.gcps[0]] for d in (mask, expected)]
        assert points[0] == points[1]
        assert mask.gcps[1] == expected.gcps[1]
        assert mask.rpcs == expected.rpcs


def test_a_mask_keeps_the_promises_of_its_format(make_raster, tmp_path):
    ids = np.random.default_rng(0).integers(0, 6, (1300, 1030), dtype="uint8")
    ids[:40] = 255
    scene = make_raster(array=ids[None], crs="EPSG:32633", transform=ROTATED)
    write(tmp_path / "mask.tif", scene, ids, tags={"model": "stub", "command": "cvmh predict"})
    with rasterio.open(tmp_path / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), ids)
        assert (mask.count, mask.dtypes, mask.nodata) == (1, ("uint8",), 255)
        assert mask.block_shapes == [(512, 512)]
        assert mask.compression.name == "deflate"
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert mask.overviews(1) == [2, 4]
        assert set(np.unique(mask.read(1, out_shape=(325, 258)))) <= {*range(6), 255}
        assert mask.colormap(1)[1] == (0, 0, 255, 255)
        assert mask.colormap(1)[255] == (0, 0, 0, 0)
        tags = mask.tags()
        assert (tags["CVMH_MODEL"], tags["CVMH_COMMAND"]) == ("stub", "cvmh predict")
        assert json.loads(tags["CVMH_CLASSES"]) == ISPRS.to_json()
        assert tags["CVMH_VERSION"]


def test_the_bytes_do_not_depend_on_how_many_rows_come_at_once(make_raster, tmp_path):
    ids = np.random.default_rng(0).integers(0, 6, (1100, 60), dtype="uint8")
    scene = make_raster(array=ids[None])
    for name, step in (("a.tif", 7), ("b.tif", 1100)):
        with Raster(scene) as raster, MaskWriter(tmp_path / name, raster, ISPRS) as writer:
            for row in range(0, 1100, step):
                writer.write_rows(ids[row : row + step])
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_nothing_is_left_behind_when_writing_is_interrupted(make_raster, tmp_path, error):
    scene = make_raster()
    with Raster(scene) as raster, pytest.raises(error):
        with MaskWriter(tmp_path / "mask.tif", raster, ISPRS) as writer:
            writer.write_rows(np.zeros((3, 7), "uint8"))
            raise error
    assert list(tmp_path.iterdir()) == [scene]


def test_an_older_mask_survives_an_interruption_and_its_sidecars_do_not_outlive_it(
    make_raster, tmp_path
):
    scene, path = make_raster(), tmp_path / "mask.tif"
    path.write_text("old")
    ends = ("tif.aux.xml", "tif.ovr", "tif.msk", "tif.vat.dbf", "qml")
    stale = [tmp_path / f"mask.{end}" for end in ends]
    for file in stale:
        file.write_text("old")
    with Raster(scene) as raster, pytest.raises(KeyboardInterrupt):
        with MaskWriter(path, raster, ISPRS, overwrite=True):
            raise KeyboardInterrupt
    assert path.read_text() == "old" and all(file.exists() for file in stale)
    write(path, scene, overwrite=True)
    legend = [tmp_path / "mask.tif.aux.xml", tmp_path / "mask.qml"]
    assert sorted(tmp_path.iterdir()) == sorted([path, scene, *legend])
    assert not any(file.read_text().startswith("old") for file in legend)


def test_an_existing_mask_is_refused_unless_told(make_raster, tmp_path):
    (tmp_path / "mask.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"exists; .*--overwrite"):
        write(tmp_path / "mask.tif", make_raster())
    assert (tmp_path / "mask.tif").read_text() == "mine"


def test_a_mask_never_replaces_its_own_scene(make_raster, tmp_path):
    scene = make_raster()
    before = scene.read_bytes()
    (tmp_path / "link.tif").symlink_to(scene)
    for path in (scene, tmp_path / "link.tif"):
        with pytest.raises(OutputError, match="would replace its own scene"):
            write(path, scene, overwrite=True)
    assert scene.read_bytes() == before


def test_a_mask_never_replaces_a_source_of_a_virtual_scene(make_raster, tmp_path):
    source = make_raster("source.tif", crs="EPSG:32633", transform=ROTATED)
    rasterio.shutil.copy(source, tmp_path / "scene.vrt", driver="VRT")
    with pytest.raises(OutputError, match="would replace its own scene"):
        write(source, tmp_path / "scene.vrt", overwrite=True)


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("mask.png", r"must end in \.tif"),
        ("missing/mask.tif", "does not exist; create it"),
        ("scene.tif/mask.tif", "does not exist; create it"),
        ("folder.tif", "is a folder"),
    ],
)
def test_an_impossible_name_is_refused(make_raster, tmp_path, name, fragment):
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(OutputError, match=fragment):
        write(tmp_path / name, make_raster(), overwrite=True)


def test_an_unwritable_folder_is_named(make_raster, tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer_module.tempfile, "mkdtemp", refuse)
    with pytest.raises(OutputError, match=r"mask\.tif cannot be written \(Permission denied\)"):
        write(tmp_path / "mask.tif", make_raster())


def test_a_file_that_gdal_left_incomplete_is_not_shown(make_raster, tmp_path, monkeypatch):
    copy = cog_module.rasterio.shutil.copy

    def copy_half(source, target, **options):
        copy(source, target, **options)
        os.truncate(target, target.stat().st_size // 2)

    monkeypatch.setattr(cog_module.rasterio.shutil, "copy", copy_half)
    ids = np.random.default_rng(0).integers(0, 6, (700, 700), dtype="uint8")
    scene = make_raster(array=ids[None])
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "mask.tif", scene, ids)
    assert list(tmp_path.iterdir()) == [scene]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from cvmh.classes import ISPRS
from cvmh.errors import OutputError
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster

scene, target, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ids = np.random.default_rng(0).integers(0, 6, (1600, 1100), dtype="uint8")
with Raster(scene) as raster:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with MaskWriter(target, raster, ISPRS) as writer:
            writer.write_rows(ids)
    except OutputError as error:
        print(error)
    else:
        print("written")
"""


# Enough for nothing, for some blocks, for all rows but not for the whole mask, for all but a byte.
@pytest.mark.parametrize("share", [0.0001, 0.1, 0.7, 0.97, 0.999999])
@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are a Unix thing")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(make_raster, tmp_path, share):
    scene = make_raster(array=np.zeros((1, 1600, 1100), "uint8"), compress="deflate")
    target = tmp_path / "mask.tif"
    write(target, scene, np.random.default_rng(0).integers(0, 6, (1600, 1100), dtype="uint8"))
    limit = int(target.stat().st_size * share)
    for file in (target, *sidecars(target)):
        file.unlink(missing_ok=True)
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(scene), str(target), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert "mask.tif cannot be written" in run.stdout
    assert list(tmp_path.iterdir()) == [scene]


def test_free_space_is_named_in_the_error(make_raster, tmp_path, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cog_module, "check_blocks", fill)
    with pytest.raises(OutputError, match=r"No space left on device\); \d+ MiB are free"):
        write(tmp_path / "mask.tif", make_raster())
