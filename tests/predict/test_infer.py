"""The bits of a mask depend on the scene and the network, on nothing about the machine."""

import numpy as np
import pytest
import rasterio
import torch

from cvmh import create_model
from cvmh.classes import ISPRS
from cvmh.geo.tiling import plan_tiles, split_columns
from cvmh.predict import predict_raster
from cvmh.predict.infer import Engine

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}


class Lopsided(torch.nn.Module):
    """Looks to the left and up only, so that no turn or flip leaves it as it is."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(6, 3, 3, 5, generator=generator, dtype=torch.float64).to(dtype)

    def forward(self, x):
        padded = torch.nn.functional.pad(x, (4, 0, 2, 0))
        return torch.nn.functional.conv2d(padded, self.weight)


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(0)
    return create_model("cvmh_unet_nano", bands=3, num_classes=len(ISPRS)).eval()


@pytest.fixture(params=["nano", "stub"])
def bundle(request, make_bundle, nano):
    return make_bundle(network=nano if request.param == "nano" else Lopsided(), tile=64)


@pytest.fixture
def scene(make_scene, noise):
    array = noise(3, 150, 170)
    array[:, 70:90, 30:99] = 0
    return make_scene(array, nodata=0, tiled=True, blockxsize=32, blockysize=32, **UTM)


def test_the_bytes_depend_neither_on_cores_batches_spans_nor_memory(
    bundle, scene, tmp_path, monkeypatch
):
    def predict(**options):
        asked = {"scores": tmp_path / "s.tif", "confidence": tmp_path / "c.tif"}
        report = predict_raster(
            scene, tmp_path / "m.tif", bundle, overwrite=True, **asked, **options
        )
        names = ("m.tif", "s.tif", "c.tif")
        return tuple((tmp_path / name).read_bytes() for name in names), report.seams

    truth = predict(batch=8)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert predict(batch=threads) == truth, threads
    finally:
        torch.set_num_threads(before)
    assert predict(max_memory=8 << 30) == truth
    # A second network on a second device of its own.
    assert predict(device="cpu,cpu:0") == truth
    for widest in (30, 64, 100):
        monkeypatch.setattr(
            "cvmh.predict.prepare.split_scene",
            lambda raster, bands, plan, widest=widest, **_: (
                split_columns(plan.width, widest=widest),
                0,
            ),
        )
        assert predict() == truth, widest


def test_averaged_turns_are_the_mean_of_eight_runs(make_bundle, noise):
    """Each tile is turned by numpy, scored in float64, and turned back."""
    assert_averaged(make_bundle, noise(3, 40, 40), [(k, flip) for k in range(4) for flip in (0, 1)])


def test_tiles_that_are_not_square_are_turned_by_halves_only(make_bundle, noise):
    assert_averaged(make_bundle, noise(3, 30, 40), [(k, flip) for k in (0, 2) for flip in (0, 1)])


def assert_averaged(make_bundle, array, turns):
    from cvmh.geo.tiling import Window
    from cvmh.predict.read import Tile

    height, width = array.shape[1:]
    pixels = (array.astype("float32") - 100) / 50
    tile = Tile(
        stripe=0,
        window=Window(0, 0, height, width),
        pixels_CHW=pixels,
        is_valid_HW=np.ones((height, width), bool),
        input_size=(height, width),
    )
    plan = plan_tiles(height, width, tile=64, overlap=0)
    bundle = make_bundle(network=Lopsided())
    with Engine(bundle, plan, batch=1, device="cpu", precision="fp32", tta=True) as engine:
        (scored,) = engine.run([tile])
    exact, total = Lopsided(torch.float64), 0
    for count, flip in turns:
        turned = np.rot90(pixels[:, :, ::-1] if flip else pixels, count, (1, 2))
        with torch.no_grad():
            logits = exact(torch.from_numpy(turned.astype("float64").copy())[None])
        back = np.rot90(logits.softmax(dim=1)[0].numpy(), -count, (1, 2))
        total = total + (back[:, :, ::-1] if flip else back)
    np.testing.assert_allclose(scored.scores_KHW.numpy(), total / len(turns), atol=2e-5)


def test_the_mask_of_a_cropped_flipped_or_referenced_scene_is_cropped_flipped_or_the_same(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    array, bundle = noise(3, 200, 248), make_bundle(tile=64)
    array[:, 50:99, 100:120] = 0

    def predict(values, name):
        scene = make_scene(values, f"{name}.tif", nodata=0, **UTM)
        predict_raster(scene, tmp_path / f"{name}_mask.tif", bundle)
        return read_mask(tmp_path / f"{name}_mask.tif")

    whole = predict(array, "whole")
    np.testing.assert_array_equal(predict(array[:, ::-1].copy(), "down"), whole[::-1])
    np.testing.assert_array_equal(predict(array[:, :, ::-1].copy(), "right"), whole[:, ::-1])
    np.testing.assert_array_equal(predict(array[:, 48:, 96:].copy(), "crop"), whole[48:, 96:])
    np.testing.assert_array_equal(predict(array.swapaxes(1, 2).copy(), "turn"), whole.T)
