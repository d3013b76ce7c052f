"""Scenes of another pixel size than that of training: the mask stays on the scene's grid."""

import numpy as np
import pytest
import rasterio
import torch
from torch.nn import functional

from cvmh.geo.raster import Raster
from cvmh.predict import predict_raster
from cvmh.predict.options import PredictOptions
from cvmh.predict.source import open_source

EAST, NORTH = 5e5, 5.4e6


class Remembering(torch.nn.Module):
    """Sees each pixel alone, and remembers the shapes that it was shown."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 1, 1, generator=generator) * 2)
        self.shapes = set()

    def forward(self, x):
        self.shapes.add(tuple(x.shape[2:]))
        return functional.conv2d(x, self.weight)


def resized(maps, size):
    return functional.interpolate(maps, size=size, mode="bilinear", antialias=True)


@pytest.mark.parametrize(
    ("gsd", "shape", "seen"),
    # Pixels half as large are averaged by two, twice as large ones are doubled.
    [(5, (60, 80), (30, 40)), (20, (20, 30), (40, 60))],
)
def test_a_single_tile_is_resized_predicted_and_resized_back(
    make_bundle, make_scene, noise, read_mask, tmp_path, gsd, shape, seen
):
    array = noise(3, *shape)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(gsd, 0, EAST, 0, -gsd, NORTH)}
    network = Remembering()
    bundle = make_bundle(network=network, gsd=10.0, tile=64)
    told = []
    report = predict_raster(
        make_scene(array, **place), tmp_path / "m.tif", bundle, warn=told.append
    )
    assert network.shapes == {seen} and report.plan["resampled_to"] == 10 and not told
    pixels = torch.from_numpy((array.astype("float32") - 100) / 50)[None]
    with torch.no_grad():
        scores = network(resized(pixels, seen)).softmax(dim=1)
    scores = resized(scores, shape)[0].numpy()
    ordered = np.sort(scores, axis=0)
    is_clear = ordered[-1] - ordered[-2] > 1e-4
    assert is_clear.mean() > 0.95
    mask = read_mask(tmp_path / "m.tif")
    assert mask.shape == shape
    np.testing.assert_array_equal(mask[is_clear], scores.argmax(axis=0)[is_clear])
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.transform == place["transform"]


@pytest.mark.parametrize("gsd", [7, 10, 14.9])
def test_pixels_nearly_as_large_are_shown_as_they_are(
    make_bundle, make_scene, noise, tmp_path, gsd
):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(gsd, 0, EAST, 0, -gsd, NORTH)}
    network = Remembering()
    bundle = make_bundle(network=network, gsd=10.0, tile=32)
    predict_raster(make_scene(noise(3, 70, 50), **place), tmp_path / "m.tif", bundle)
    assert network.shapes == {(32, 32)}


def test_in_degrees_tiles_are_as_wide_as_the_ground_is_there(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    """At 70 degrees north a degree of longitude is a third of one of latitude, and shrinks."""
    step = 0.001
    place = {"crs": "EPSG:4326", "transform": rasterio.Affine(step, 0, 20, 0, -step * 3, 72)}
    network = Remembering()
    bundle = make_bundle(network=network, gsd=400.0, tile=32)
    array = noise(3, 700, 900)
    array[:, 100:120, 30:90] = 0
    scene = make_scene(array, nodata=0, **place)
    with Raster(scene) as raster:
        source = open_source(raster, bundle.card, PredictOptions(), print)
        plan = source.lay_tiles(0.25)
    metres = 111_320 * step * np.cos(np.radians(72 - np.array(plan.rows) * step * 3))
    np.testing.assert_allclose(np.array(plan.tile_widths) * metres, 32 * 400, rtol=0.05)
    assert plan.tile_height * 111_500 * step * 3 == pytest.approx(32 * 400, rel=0.05)
    assert len(set(plan.tile_widths)) > 3
    predict_raster(scene, tmp_path / "m.tif", bundle)
    assert all(abs(side - 32) <= 1 for shape in network.shapes for side in shape)
    mask = read_mask(tmp_path / "m.tif")
    np.testing.assert_array_equal(mask != 255, (array != 0).all(axis=0))
