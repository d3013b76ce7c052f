"""What a prediction leaves beside its mask, and what it refuses to touch."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from cvmh.classes import ISPRS
from cvmh.errors import CvmhError, OutputError
from cvmh.plots import preview
from cvmh.predict import predict_raster

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
# On the WGS 84 ellipsoid.
EARTH = 510_065_621.724e6


@pytest.fixture
def holed(make_scene, noise):
    """Return a scene with a hole, and where it is data."""
    array = noise(3, 90, 70)
    array[:, 20:50, 10:30] = 0
    return make_scene(array, nodata=0, **UTM), (array != 0).all(axis=0)


def truth(bundle, scene):
    """Return the scores (K, H, W) of a network that sees each pixel alone, in float64."""
    with rasterio.open(scene) as dataset:
        pixels = torch.from_numpy((dataset.read().astype("float64") - 100) / 50)[None]
    with torch.no_grad():
        return bundle.network.double()(pixels).softmax(dim=1)[0].numpy()


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_scores_are_the_networks_one_named_band_a_class(
    make_bundle, holed, read_mask, tmp_path, kind
):
    (scene, is_data), bundle = holed, make_bundle()
    predict_raster(scene, tmp_path / "m.tif", bundle, scores=tmp_path / "s.tif", scores_type=kind)
    with rasterio.open(tmp_path / "s.tif") as found:
        assert list(found.descriptions) == list(ISPRS.names) and found.count == len(ISPRS)
        values = found.read().astype("float64")
        assert found.transform == UTM["transform"] and found.crs == UTM["crs"]
        if kind == "uint8":
            assert set(found.nodatavals) == {255} and found.dtypes[0] == "uint8"
            assert found.scales == (1 / 254,) * len(ISPRS)
            is_none, values, precision = values == 255, values / 254, 0.51 / 254
        else:
            assert np.isnan(found.nodatavals).all() and found.dtypes[0] == "float32"
            is_none, precision = np.isnan(values), 1e-3
    np.testing.assert_array_equal(is_none, np.broadcast_to(~is_data, is_none.shape))
    expected = truth(bundle, scene)
    assert np.abs(values - expected)[:, is_data].max() < precision
    assert np.abs(values.sum(axis=0) - 1)[is_data].max() < 3.01 / 254
    ordered = np.sort(values, axis=0)
    is_clear = is_data & (ordered[-1] - ordered[-2] > 2 / 254)
    assert is_clear.mean() > 0.5
    ids = read_mask(tmp_path / "m.tif")
    np.testing.assert_array_equal(ids[is_clear], values.argmax(axis=0)[is_clear])


def test_confidence_is_the_score_of_the_masks_class(make_bundle, holed, tmp_path):
    (scene, is_data), bundle = holed, make_bundle()
    predict_raster(scene, tmp_path / "m.tif", bundle, confidence=tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as found:
        values = found.read(1)
        assert (found.descriptions, found.nodata, found.scales) == (
            ("confidence",),
            255,
            (1 / 254,),
        )
    np.testing.assert_array_equal(values == 255, ~is_data)
    expected = truth(bundle, scene).max(axis=0)
    assert np.abs(values / 254 - expected)[is_data].max() < 0.51 / 254


def test_what_lies_beside_the_mask_changes_no_byte_of_it(make_bundle, holed, tmp_path):
    (scene, _), bundle = holed, make_bundle()
    predict_raster(scene, tmp_path / "a.tif", bundle)
    predict_raster(
        *(scene, tmp_path / "b.tif", bundle),
        scores=tmp_path / "s.tif",
        confidence=tmp_path / "c.tif",
        vectors=tmp_path / "v.gpkg",
        preview=tmp_path / "p.png",
        report=tmp_path / "r.json",
    )
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".parquet"])
def test_polygons_cover_what_is_data_and_may_be_replaced(make_bundle, holed, tmp_path, suffix):
    pyogrio = pytest.importorskip("pyogrio")
    (scene, _), path = holed, tmp_path / f"v{suffix}"
    report = predict_raster(scene, tmp_path / "m.tif", make_bundle(), vectors=path, simplify=0)
    if suffix != ".parquet":
        layer = pyogrio.list_layers(path)[0, 0]
        table = pyogrio.raw.read(path, layer=layer)
        areas = dict(zip(table[0]["fields"], table[3], strict=True))["area_m2"]
        assert areas.sum() == pytest.approx(report.area, rel=1e-6)
    assert report.area == pytest.approx(100 * report.pixels_valid, rel=1e-9)
    with pytest.raises(OutputError, match="exists"):
        predict_raster(scene, tmp_path / "other.tif", make_bundle(), vectors=path)
    predict_raster(scene, tmp_path / "m.tif", make_bundle(), vectors=path, overwrite=True)


def test_the_preview_shows_scene_mask_and_legend(make_bundle, holed, tmp_path):
    from matplotlib.image import imread

    predict_raster(holed[0], tmp_path / "m.tif", make_bundle(), preview=tmp_path / "p.png")
    picture = (imread(tmp_path / "p.png")[..., :3] * 255).round().astype(int)
    assert picture.shape[1] > picture.shape[0] > 300
    # Every colour of the legend is there, and many of the scene.
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert set(ISPRS.colours) <= colours and len(colours) > 500


def test_areas_are_those_of_a_closed_form(make_bundle, make_scene, noise, tmp_path):
    """The whole earth in degrees; a stripe of it spans the equator and a pole."""
    place = {"crs": "EPSG:4326", "transform": rasterio.Affine(2, 0, -180, 0, -2, 90)}
    scene = make_scene(noise(3, 90, 180), **place)
    report = predict_raster(
        scene, tmp_path / "m.tif", make_bundle(), report=tmp_path / "r.json", tile=64
    )
    assert report.area == pytest.approx(EARTH, rel=1e-3)
    with rasterio.open(tmp_path / "m.tif") as mask:
        ids = mask.read(1)
    # On the sphere of equal area a row is a zone, whose area is that of its height.
    edges = np.sin(np.radians(np.linspace(90, -90, 91)))
    rows = EARTH * -np.diff(edges) / 2 / 180
    for number, area in enumerate(report.class_areas):
        expected = float(((ids == number) * rows[:, None]).sum())
        assert area == pytest.approx(expected, rel=0.01)
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["class_areas"] == list(report.class_areas)
    assert kept["pixels_per_second"] == pytest.approx(90 * 180 / kept["seconds"])
    assert kept["km2_per_second"] == pytest.approx(kept["area"] / 1e6 / kept["seconds"])
    assert kept["class_pixels"] == [int((ids == number).sum()) for number in range(6)]


def test_outputs_may_lie_on_another_disk(make_bundle, holed, tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk here")
    with tempfile.TemporaryDirectory(dir=other) as name:
        far = Path(name)
        asked = {"scores": far / "s.tif", "confidence": far / "c.tif", "vectors": far / "v.gpkg"}
        asked |= {"preview": far / "p.png", "report": far / "r.json"}
        predict_raster(holed[0], tmp_path / "m.tif", make_bundle(), **asked)
        assert {path.name for path in far.iterdir()} >= {path.name for path in asked.values()}
        assert not list(far.glob(".*")) and not list(tmp_path.glob(".*"))


REFUSED = {
    "exists": ({"preview": "mine.png"}, r"preview .*mine\.png exists"),
    "existing polygons": ({"vectors": "mine.gpkg"}, r"mine\.gpkg exists"),
    "missing folder": ({"scores": "none/s.tif"}, r"folder .*none of s\.tif does not exist"),
    "polygons in a missing folder": ({"vectors": "none/v.gpkg"}, "does not exist"),
    "a folder": ({"report": "folder.json"}, r"folder\.json is a folder"),
    "wrong suffix": ({"scores": "s.png"}, r"--scores must end in \.tif or \.tiff"),
    "wrong polygons": ({"vectors": "v.shp"}, r"\.gpkg"),
    "wrong picture": ({"preview": "p.jpg"}, r"--preview must end in \.png"),
    "twice": ({"scores": "x.tif", "confidence": "x.tif"}, "two outputs would be the same file"),
    "twice by another name": (
        {"scores": "x.tif", "confidence": "folder.json/../x.tif"},
        "two outputs would be the same file",
    ),
    "the mask itself": ({"scores": "m.tif"}, "two outputs would be the same file"),
    "the scene": ({"confidence": "scene.tif", "overwrite": True}, "would replace its own scene"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_must_not_be_written_are_refused_before_any_work(
    make_bundle, holed, tmp_path, name
):
    (tmp_path / "folder.json").mkdir()
    for mine in ("mine.png", "mine.gpkg"):
        (tmp_path / mine).write_text("mine")
    options, sentence = REFUSED[name]
    asked = {key: value if value is True else tmp_path / value for key, value in options.items()}
    network = torch.nn.Identity()
    network.forward = None
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=sentence):
        predict_raster(holed[0], tmp_path / "m.tif", make_bundle(network=network), **asked)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_picture_that_cannot_be_written_is_told_and_leaves_no_half(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    panels = {"mask": np.zeros((9, 9, 3), "uint8")}
    with pytest.raises(CvmhError, match=r"p\.png cannot be written \(No space left on device\)"):
        preview(tmp_path / "p.png", panels, ISPRS)
    assert not list(tmp_path.iterdir())
