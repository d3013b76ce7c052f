import warnings

import numpy as np
import pytest
import rasterio
import torch

from cvmh.errors import BundleError, ConfigError, OutputError, RasterError
from cvmh.geo.tiling import Window, plan_tiles
from cvmh.predict import predict_raster
from cvmh.predict.infer import Engine
from cvmh.predict.read import Tile


class Constant(torch.nn.Module):
    """Gives the same scores everywhere; class 4 is the largest by little."""

    def forward(self, x):
        logits = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.45, 0.2])
        return logits[None, :, None, None].expand(len(x), 6, *x.shape[2:])


class Broken(torch.nn.Module):
    """Works for some batches, then fails."""

    def __init__(self, error, after=1):
        super().__init__()
        self.error, self.after = error, after

    def forward(self, x):
        self.after -= 1
        if self.after < 0:
            raise self.error
        return torch.zeros(len(x), 6, *x.shape[2:])


class Counting(Constant):
    """Remembers the shapes of the batches it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return super().forward(x)


def expected_mask(bundle, array, is_valid=None):
    """The mask computed on the whole array at once, for a network that sees each pixel alone."""
    card = bundle.card
    mean, std = (np.array(v, "float32")[:, None, None] for v in (card.mean, card.std))
    pixels = torch.from_numpy((array.astype("float32") - mean) / std)[None]
    with torch.no_grad():
        ids = bundle.network(pixels)[0].argmax(0).numpy().astype("uint8")
    if is_valid is not None:
        ids[~is_valid] = 255
    return ids


@pytest.mark.parametrize(
    ("tile", "overlap", "batch"),
    [(64, 0.25, 8), (64, 0, 1), (33, 0.5, 3), (50, 0.8, 7), (512, 0.25, 4), (1, 0, 500)],
)
@pytest.mark.parametrize("shape", [(70, 90), (1, 90), (64, 64), (131, 3)])
def test_a_pixelwise_network_gives_the_same_mask_whatever_the_tiles(
    make_bundle, make_scene, noise, read_mask, tmp_path, shape, tile, overlap, batch
):
    bundle, array = make_bundle(), noise(3, *shape)
    scene, output = make_scene(array), tmp_path / "mask.tif"
    predict_raster(scene, output, bundle, tile=tile, overlap=overlap, batch=batch)
    np.testing.assert_array_equal(read_mask(output), expected_mask(bundle, array))


def test_the_mask_of_a_network_with_context_does_not_depend_on_the_batch(
    make_bundle, make_scene, noise, tmp_path
):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3, padding=1)
    )
    bundle, scene = make_bundle(network=network), make_scene(noise(3, 150, 130))
    files = set()
    for batch in (1, 2, 5, 64):
        predict_raster(scene, tmp_path / "mask.tif", bundle, batch=batch, overwrite=True)
        files.add((tmp_path / "mask.tif").read_bytes())
    assert len(files) == 1


def test_a_tile_gets_the_same_scores_to_the_last_bit_wherever_it_stands_in_a_batch(
    make_bundle, noise
):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3, padding=1)
    )
    bundle = make_bundle(network=network)
    plan = plan_tiles(40, 30 * 11, tile=40, overlap=0)
    tiles = [
        Tile(
            stripe=0,
            window=Window(0, 0, 40, 40),
            pixels_CHW=pixels,
            is_valid_HW=np.ones((40, 40), dtype=bool),
            input_size=(40, 40),
        )
        for pixels in noise(11, 3, 40, 40, dtype="float32") / 100
    ]
    with Engine(bundle, plan, batch=4, device="cpu", precision="fp32", cores=3) as engine:
        forwards = [scored.scores_KHW for scored in engine.run(tiles)]
        backwards = [scored.scores_KHW for scored in engine.run(tiles[::-1])][::-1]
    with Engine(bundle, plan, batch=4, device="cpu", precision="fp32", cores=1) as engine:
        on_one_core = [scored.scores_KHW for scored in engine.run(tiles)]
    assert len(forwards) == len(tiles)
    for one, other, third in zip(forwards, backwards, on_one_core, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


@pytest.mark.parametrize("tile", [16, 31, 64])
def test_constant_scores_stay_constant_up_to_the_last_border_pixel(
    make_bundle, make_scene, noise, read_mask, tmp_path, tile
):
    bundle = make_bundle(network=Constant())
    report = predict_raster(make_scene(noise(3, 101, 77)), tmp_path / "mask.tif", bundle, tile=tile)
    assert (read_mask(tmp_path / "mask.tif") == 4).all()
    assert report.class_pixels == (0, 0, 0, 0, 101 * 77, 0)


def test_no_data_is_255_and_its_tiles_are_skipped(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    bundle, array = make_bundle(), noise(3, 200, 150)
    array[:, :130] = 0
    array[0, 150:, ::7] = 0
    scene = make_scene(array, nodata=0)
    seen = []
    report = predict_raster(
        scene, tmp_path / "mask.tif", bundle, overlap=0, progress=lambda *call: seen.append(call)
    )
    is_valid = np.ones((200, 150), bool)
    is_valid[:130] = False
    np.testing.assert_array_equal(
        read_mask(tmp_path / "mask.tif"), expected_mask(bundle, array, is_valid)
    )
    assert (report.tiles_run, report.tiles_skipped) == (6, 6)
    assert (report.pixels, report.pixels_valid) == (200 * 150, 70 * 150)
    assert sum(report.class_pixels) == report.pixels_valid
    assert report.bands == (1, 2, 3) and report.seconds > 0
    counts = [done for stage, done, total, unit in seen]
    assert counts == sorted(counts) and counts[-1] == 12
    assert {(stage, total, unit) for stage, _, total, unit in seen} == {("predict", 12, "tiles")}


def test_nodata_that_the_user_names_is_255_and_kept_in_the_tags(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    bundle, array = make_bundle(), np.maximum(noise(3, 90, 70), 1)
    array[:, :40, 10:30] = 0
    output = tmp_path / "mask.tif"
    predict_raster(make_scene(array), output, bundle, nodata=0)
    np.testing.assert_array_equal(read_mask(output) != 255, (array != 0).all(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(output) as mask:
            assert mask.tags()["CVMH_NODATA"] == "0"


def test_nodata_beside_a_declared_one_is_told(make_bundle, make_scene, noise, tmp_path):
    scene, told = make_scene(noise(3, 40, 40), nodata=0), []
    predict_raster(scene, tmp_path / "a.tif", make_bundle(), nodata=255, warn=told.append)
    predict_raster(scene, tmp_path / "b.tif", make_bundle(), nodata=0, warn=told.append)
    assert len(told) == 1
    assert "declares nodata 0 for all of its bands that are used, so the given 255" in told[0]


def test_nan_becomes_no_data_and_does_not_spread(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    bundle = make_bundle(dtype="float32", network=torch.nn.Conv2d(3, 6, 5, padding=2))
    array = noise(3, 90, 70, dtype="float32")
    array[1, 20:40, 30] = np.nan
    predict_raster(make_scene(array), tmp_path / "mask.tif", bundle)
    is_valid = read_mask(tmp_path / "mask.tif") != 255
    np.testing.assert_array_equal(is_valid, np.isfinite(array).all(axis=0))


def test_a_scene_without_any_data_gives_an_empty_mask_and_the_network_is_not_asked(
    make_bundle, make_scene, read_mask, tmp_path
):
    scene = make_scene(np.zeros((3, 90, 30), "uint8"), nodata=0)
    bundle = make_bundle(network=Broken(AssertionError("asked"), after=0))
    report = predict_raster(scene, tmp_path / "mask.tif", bundle)
    assert (read_mask(tmp_path / "mask.tif") == 255).all()
    assert (report.tiles_run, report.pixels_valid) == (0, 0)


def test_every_batch_has_one_shape_and_no_more_tiles_than_the_scene(
    make_bundle, make_scene, noise, tmp_path
):
    network = Counting()
    predict_raster(
        make_scene(noise(3, 400, 400)),
        tmp_path / "mask.tif",
        make_bundle(network=network),
        overlap=0,
    )
    # 49 tiles, of which a pass on the CPU takes 32 at most.
    assert network.seen == [(25, 3, 64, 64)] * 2


def test_bands_are_taken_by_the_names_of_the_bundle(
    make_bundle, make_scene, noise, read_mask, tmp_path
):
    bundle, array = make_bundle(), noise(3, 40, 40)
    scene = make_scene(array[::-1].copy(), photometric="MINISBLACK")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(scene, "r+") as dataset:
            dataset.descriptions = ("blue", "green", "red")
    predict_raster(scene, tmp_path / "a.tif", bundle)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), expected_mask(bundle, array))
    predict_raster(scene, tmp_path / "b.tif", bundle, bands=(1, 1, 2))
    np.testing.assert_array_equal(
        read_mask(tmp_path / "b.tif"), expected_mask(bundle, array[[2, 2, 1]])
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_a_failure_in_the_network_is_raised_and_leaves_no_mask(
    make_bundle, make_scene, noise, tmp_path, error
):
    scene = make_scene(noise(3, 500, 500))
    with pytest.raises(type(error)):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle(network=Broken(error)))
    # What was finished is kept, out of sight.
    assert {path.name for path in tmp_path.iterdir()} <= {scene.name, ".mask.tif.part"}


@pytest.mark.parametrize(
    ("logits", "fragment"),
    [
        (lambda x: torch.full((len(x), 6, *x.shape[2:]), torch.nan), "finite scores.*rows 0..64"),
        (lambda x: torch.zeros(len(x), 5, *x.shape[2:]), "must give logits of shape"),
        (lambda x: torch.zeros(len(x), 6, 2, 2), "must give logits of shape"),
    ],
)
def test_useless_output_of_the_network_is_refused(
    make_bundle, make_scene, noise, tmp_path, logits, fragment
):
    network = torch.nn.Identity()
    network.forward = logits
    scene = make_scene(noise(3, 100, 100))
    with pytest.raises(BundleError, match=fragment):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle(network=network))
    assert list(tmp_path.iterdir()) == [scene]


def test_another_dtype_than_that_of_training_needs_force(make_bundle, make_scene, noise, tmp_path):
    scene, bundle = make_scene(noise(3, 20, 20, dtype="uint16")), make_bundle()
    with pytest.raises(RasterError, match=r"must be uint8 as in training, got uint16; .*--force"):
        predict_raster(scene, tmp_path / "mask.tif", bundle)
    predict_raster(scene, tmp_path / "mask.tif", bundle, force=True)


def test_a_palette_needs_force(make_bundle, make_scene, noise, tmp_path):
    scene = make_scene(noise(1, 20, 20), photometric="PALETTE")
    bundle = make_bundle(band_names=("pan",))
    with pytest.raises(RasterError, match=r"got a palette .*-expand rgb"):
        predict_raster(scene, tmp_path / "mask.tif", bundle)
    predict_raster(scene, tmp_path / "mask.tif", bundle, force=True)


@pytest.mark.parametrize(("gsd", "is_told"), [(0.5, False), (0.7, False), (0.2, True), (1, True)])
def test_a_very_different_pixel_size_is_told(
    make_bundle, make_scene, noise, tmp_path, gsd, is_told
):
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    scene, told = make_scene(noise(3, 20, 20), **where), []
    predict_raster(
        scene, tmp_path / "mask.tif", make_bundle(gsd=gsd), warn=told.append, resample=False
    )
    assert bool(told) == is_told
    assert all("pixels of 0.5 m" in message for message in told)


def test_without_a_callback_the_pixel_size_is_a_python_warning(
    make_bundle, make_scene, noise, tmp_path
):
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    scene = make_scene(noise(3, 20, 20), **where)
    with pytest.warns(UserWarning, match="without resampling the mask may be poor"):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle(gsd=5), resample=False)


@pytest.mark.parametrize(
    ("setting", "fragment"),
    [
        ({"tile": 0}, "tile size"),
        ({"overlap": 1}, "overlap"),
        ({"batch": 0}, "batch must be at least 1 tile, got 0"),
        ({"device": "abacus"}, "device must be auto"),
        ({"device": "cuda:99"}, "not on this machine; it has cpu"),
        ({"device": "xpu"}, "not on this machine; it has cpu"),
        ({"precision": "fp8"}, "precision must be auto"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_output(
    make_bundle, make_scene, noise, tmp_path, setting, fragment
):
    scene = make_scene(noise(3, 20, 20))
    with pytest.raises(ConfigError, match=fragment):
        predict_raster(scene, tmp_path / "mask.tif", make_bundle(), **setting)
    assert list(tmp_path.iterdir()) == [scene]


@pytest.mark.parametrize("card", [{"std": (1.0, 0.0, 1.0)}, {"mean": (1.0,)}])
def test_statistics_that_cannot_scale_are_refused(make_bundle, make_scene, noise, tmp_path, card):
    with pytest.raises((BundleError, ValueError), match=r"std|mean"):
        predict_raster(make_scene(noise(3, 9, 9)), tmp_path / "mask.tif", make_bundle(**card))


def test_an_existing_mask_is_kept_unless_told(make_bundle, make_scene, noise, tmp_path):
    scene, output = make_scene(noise(3, 20, 20)), tmp_path / "mask.tif"
    output.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        predict_raster(scene, output, make_bundle())
    assert output.read_text() == "mine"
    predict_raster(scene, output, make_bundle(), overwrite=True, command="cvmh predict scene.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(output) as mask:
            assert mask.tags()["CVMH_COMMAND"] == "cvmh predict scene.tif"
            assert mask.tags()["CVMH_MODEL"] == "stub"


def test_bfloat16_runs_on_the_cpu_too(make_bundle, make_scene, noise, read_mask, tmp_path):
    bundle, array = make_bundle(), noise(3, 60, 60)
    predict_raster(make_scene(array), tmp_path / "mask.tif", bundle, precision="bf16")
    # Eight bits of mantissa move the few pixels where two classes are nearly even.
    agreement = (read_mask(tmp_path / "mask.tif") == expected_mask(bundle, array)).mean()
    assert agreement > 0.97


def test_a_tile_that_the_network_does_not_take_is_named(make_bundle, make_scene, noise, tmp_path):
    class Picky(torch.nn.Conv2d):
        def forward(self, x):
            if x.shape[2] % 32:
                raise RuntimeError("must be a multiple of 32\nmore words")
            return super().forward(x)

    scene = make_scene(noise(3, 100, 100))
    bundle = make_bundle(network=Picky(3, 6, 1))
    sentence = r"does not take tiles of 50 x 50 pixels \(must be a multiple of 32\); .* --tile 64"
    with pytest.raises(BundleError, match=sentence):
        predict_raster(scene, tmp_path / "mask.tif", bundle, tile=50)
    assert list(tmp_path.iterdir()) == [scene]
    predict_raster(scene, tmp_path / "mask.tif", bundle, tile=96)
