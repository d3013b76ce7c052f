"""What holds no data is left out of tiles, and nothing that holds any changes by it."""

import json
from collections import Counter

import numpy as np
import pytest
import rasterio
import torch
from torch.nn import functional

from cvmh import create_model
from cvmh.classes import ISPRS
from cvmh.config import PruningSettings
from cvmh.errors import BundleError, ConfigError
from cvmh.geo.tiling import Window, blend_weights, plan_tiles, split_columns
from cvmh.models.cvmh_unet import CVMHUNet
from cvmh.models.pruning import WHOLE, MaskedGrid
from cvmh.models.pruning.scores import count_kept
from cvmh.predict import plan_prediction, predict_raster
from cvmh.predict.augment import IDENTITY
from cvmh.predict.cells import DENSE_ABOVE, Cells, find_cells
from cvmh.predict.infer import Engine
from cvmh.predict.journal import Journal
from cvmh.predict.options import PRUNE_MODES as OF_LIBRARY
from cvmh.predict.passes import PASSES_TO_WAIT, PassMaker, tiles_to_wait
from cvmh.predict.pruning import OFF, Pruning, choose_pruning
from cvmh.predict.read import Tile

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6)}
MEAN, STD = 100, 50
NODATA = Pruning(without_data=True)


class Stopped(Exception):
    """Whatever ends a process."""


class Counted:
    """Tiles that come one after the other, and how many have."""

    def __init__(self, tiles):
        self.tiles, self.came = tiles, 0

    def __iter__(self):
        for tile in self.tiles:
            self.came += 1
            yield tile


class Witness(CVMHUNet):
    """Remembers every image and grid that it, or a copy of it, is shown."""

    def __init__(self, settings):
        super().__init__(settings)
        seen = []
        self.remember, self.recall = seen.append, seen.copy

    def forward(self, image, grid=WHOLE, keep=None, trace=None):
        self.remember((image.clone(), grid))
        return super().forward(image, grid, keep)


class Dense(CVMHUNet):
    """The same network, which takes no grid."""

    def forward(self, image):
        return super().forward(image)


@pytest.fixture(scope="module")
def settings():
    return create_model("cvmh_unet_nano", bands=3, num_classes=len(ISPRS)).settings


@pytest.fixture
def make_network(settings):
    """Return a function that makes a tiny network of a class, always with the same weights."""

    def make(kind=CVMHUNet, **changes):
        small = {"widths": (8, 8, 16, 16), "encoder_depths": (1,) * 4, "decoder_depths": (1,) * 4}
        torch.manual_seed(0)
        return kind(settings.model_copy(update={**small, **changes})).eval()

    return make


@pytest.fixture
def holed(make_scene, noise):
    """Return a function that writes a scene with holes of every kind, and gives path and data."""

    def make(height=230, width=330, **profile):
        array = noise(3, height, width)
        is_data = np.ones((height, width), bool)
        is_data[np.add.outer(np.arange(height), np.arange(width)) < 250] = False
        is_data[64:128, 224:288] = False
        is_data[100, 240] = True
        is_data[150:, 20:90] = False
        array[:, ~is_data] = 0
        return make_scene(array, nodata=0, **{**UTM, **profile}), array, is_data

    return make


def cells_one_by_one(is_data):
    """Return which cells hold data, looked at one after another."""
    height, width = is_data.shape
    rows, columns = range(0, height, 32), range(0, width, 32)
    return np.array([[is_data[y : y + 32, x : x + 32].any() for x in columns] for y in rows])


def looped(network, array, is_data, *, tile, overlap):
    """Return the mean scores of a scene, from masked full maps, and the tiles pruned and dense."""
    _, height, width = array.shape
    sums, weight_sums = np.zeros((len(ISPRS), height, width)), np.zeros((height, width))
    pruned = dense = 0
    for stripe in plan_tiles(height, width, tile=tile, overlap=overlap).stripes():
        for window in stripe.windows:
            inside = window.rows, window.columns
            valid = is_data[inside]
            if not valid.any():
                continue
            pixels = np.where(valid, (array[:, *inside].astype(np.float32) - MEAN) / STD, 0)
            active = cells_one_by_one(valid)
            is_dense = active.mean() > DENSE_ABOVE
            grid = WHOLE if is_dense else MaskedGrid(torch.from_numpy(active)[None])
            with torch.inference_mode():
                logits = network(torch.from_numpy(pixels.astype(np.float32))[None], grid)
            weights = blend_weights(window.height, window.width).astype(np.float64)
            sums[:, *inside] += weights * logits[0].double().softmax(0).numpy()
            weight_sums[inside] += weights
            dense, pruned = dense + is_dense, pruned + (not is_dense)
    return sums / np.maximum(weight_sums, 1e-30), pruned, dense


@pytest.mark.parametrize(("tile", "overlap"), [(96, 0.25), (80, 0.4)])
def test_a_mask_is_that_of_a_loop_over_tiles_with_masked_maps(
    make_bundle, make_network, holed, read_mask, tmp_path, tile, overlap
):
    scene, array, is_data = holed()
    network = make_network()
    report = predict_raster(
        scene, tmp_path / "m.tif", make_bundle(network=network, tile=tile), overlap=overlap
    )
    scores, pruned, dense = looped(network, array, is_data, tile=tile, overlap=overlap)
    assert pruned >= 5 and dense >= 5
    assert (report.pruning.tiles_pruned, report.pruning.tiles_dense) == (pruned, dense)
    expected = np.where(is_data, scores.argmax(0), 255)
    found = read_mask(tmp_path / "m.tif")
    best = np.sort(scores, axis=0)
    is_clear = (best[-1] - best[-2] > 1e-5) | ~is_data
    assert is_clear.mean() > 0.999
    np.testing.assert_array_equal(found[is_clear], expected[is_clear])


def test_a_tile_without_data_never_reaches_the_network_nor_does_a_cell(
    make_bundle, make_network, holed, tmp_path
):
    scene, _, _ = holed()
    network = make_network(Witness)
    report = predict_raster(scene, tmp_path / "m.tif", make_bundle(network=network, tile=96))
    shown = 0
    for images, grid in network.recall():
        for place, image in enumerate(images):
            has_data = (image != 0).any(0).numpy()
            if grid is WHOLE:
                shown += has_data.any()
                continue
            active = grid.active_BGG[place].numpy()
            np.testing.assert_array_equal(active, cells_one_by_one(has_data))
            shown += active.any()
    assert shown == report.tiles_run
    assert report.tiles_skipped > 0


def holed_tiles(count, side, plan):
    """Return tiles of a stripe, of which some have no hole and the others one of any size."""
    rng = np.random.default_rng(1)
    tiles = []
    for number in range(count):
        valid = np.ones((side, side), bool)
        if number % 4:
            valid[: rng.integers(1, side + 1), : rng.integers(1, side)] = False
            valid[:, : rng.integers(1, side)] = False
        tiles.append(
            Tile(
                stripe=0,
                window=Window(0, plan.columns[0][number], side, side),
                pixels_CHW=np.where(valid, rng.normal(size=(3, side, side)), 0).astype("float32"),
                is_valid_HW=valid,
                input_size=(side, side),
            )
        )
    return tiles


@pytest.mark.parametrize("tta", [False, True])
def test_tiles_get_the_same_bits_whatever_comes_with_them_and_come_in_their_order(
    make_bundle, make_network, tta
):
    side, count = 128, 4 if tta else 23
    plan = plan_tiles(side, side * count, tile=side, overlap=0)
    tiles = holed_tiles(count, side, plan)

    def run(chosen):
        engine = Engine(
            make_bundle(network=make_network()),
            plan,
            batch=3,
            device="cpu",
            precision="fp32",
            tta=tta,
            pruning=NODATA,
        )
        with engine:
            found = list(engine.run(chosen))
        assert [scored.tile.window for scored in found] == [tile.window for tile in chosen]
        return {scored.tile.window: scored for scored in found}

    together = run(tiles)
    pruned = [scored for scored in together.values() if scored.cells is not None]
    assert 2 <= len(pruned) < count
    for chosen in (tiles[1::2], tiles[-1:]):
        for window, scored in run(chosen).items():
            assert torch.equal(scored.scores_KHW, together[window].scores_KHW), window


def test_averaged_turns_turn_the_cells_too(make_bundle, make_network):
    """Also where a tile is no multiple of cells, so that other pixels share one when turned."""
    side, network = 80, make_network()
    plan = plan_tiles(side, side * 2, tile=side, overlap=0)
    (tile,) = holed_tiles(2, side, plan)[1:]
    tile.is_valid_HW[:] = False
    tile.is_valid_HW[70:, 10:40] = True
    bundle = make_bundle(network=network)
    options = {"batch": 1, "device": "cpu", "precision": "fp32"}
    with Engine(bundle, plan, tta=True, pruning=NODATA, **options) as engine:
        (scored,) = engine.run([tile])
    total = 0
    for count in range(4):
        for flip in (False, True):
            step = -1 if flip else 1
            pixels = np.rot90(tile.pixels_CHW[:, :, ::step], count, (1, 2)).copy()
            valid = np.rot90(tile.is_valid_HW[:, ::step], count)
            grid = MaskedGrid(torch.from_numpy(cells_one_by_one(valid))[None])
            with torch.inference_mode():
                logits = network(torch.from_numpy(pixels)[None], grid)
            back = np.rot90(logits.softmax(1)[0].numpy(), -count, (1, 2))
            total = total + back[:, :, ::step]
    difference = np.abs(scored.scores_KHW.numpy() - total / 8)[:, tile.is_valid_HW]
    assert difference.max() < 1e-5


@pytest.mark.parametrize(
    ("native", "wanted"), [((64, 96), (64, 96)), ((50, 70), (96, 64)), ((200, 130), (64, 100))]
)
def test_no_pixel_with_data_takes_scores_from_a_cell_that_is_left_out(native, wanted):
    """Torch itself says where a cell's scores go when they are resized."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        valid = np.zeros(native, bool)
        y, x = (int(rng.integers(size)) for size in native)
        valid[y : y + 9, x : x + 5] = True
        tile = Tile(
            stripe=0,
            window=Window(0, 0, *native),
            pixels_CHW=np.zeros((3, *native), np.float32),
            is_valid_HW=valid,
            input_size=wanted,
        )
        (kept,) = find_cells(tile, [IDENTITY]).masks
        assert kept.shape == tuple(-(-side // 32) for side in wanted)
        for row, column in np.ndindex(kept.shape):
            map_ = torch.zeros(1, 1, *wanted)
            map_[..., row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = 1
            reached = functional.interpolate(map_, native, mode="bilinear", antialias=True)
            if (reached[0, 0].numpy()[valid] > 0).any():
                assert kept[row, column], (row, column)
        if native == wanted:
            np.testing.assert_array_equal(kept, cells_one_by_one(valid))


def test_the_bytes_depend_neither_on_cores_batches_nor_spans(
    make_bundle, make_network, holed, tmp_path, monkeypatch
):
    scene, _, _ = holed(tiled=True, blockxsize=32, blockysize=32)
    bundle = make_bundle(network=make_network(), tile=96)

    def predict(**options):
        asked = {"scores": tmp_path / "s.tif", "scores_type": "float16", "overwrite": True}
        report = predict_raster(scene, tmp_path / "m.tif", bundle, **asked, **options)
        files = tuple((tmp_path / name).read_bytes() for name in ("m.tif", "s.tif"))
        return files, report.pruning.tiles_by_cells, report.pruning.mean_kept_share

    truth = predict()
    assert truth[1] and truth[2] < 1
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert predict(batch=threads) == truth
    finally:
        torch.set_num_threads(before)
    for widest in (70, 150):
        monkeypatch.setattr(
            "cvmh.predict.prepare.split_scene",
            lambda raster, bands, plan, widest=widest, **_: (
                split_columns(plan.width, widest=widest),
                0,
            ),
        )
        files, cells, share = predict()
        assert (files, cells) == truth[:2] and share == pytest.approx(truth[2])


def test_a_stop_after_any_stripe_changes_no_byte(
    make_bundle, make_network, holed, tmp_path, monkeypatch
):
    scene, _, _ = holed()
    bundle, mask = make_bundle(network=make_network(), tile=96), tmp_path / "m.tif"
    truth = predict_raster(scene, mask, bundle)
    expected = mask.read_bytes()
    append = Journal.append
    for count in range(1, 3):
        mask.unlink()
        left = [count]

        def counted(self, *arguments, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            append(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", counted)
            with pytest.raises(Stopped):
                predict_raster(scene, mask, bundle)
        report = predict_raster(scene, mask, bundle)
        assert report.stripes_kept == count
        assert mask.read_bytes() == expected
        assert report.pruning.tiles_by_cells == truth.pruning.tiles_by_cells
        assert report.pruning.mean_kept_share == pytest.approx(truth.pruning.mean_kept_share)


def test_what_lies_outside_the_area_of_interest_is_no_data(
    make_bundle, make_network, make_scene, noise, read_mask, tmp_path
):
    array = noise(3, 200, 200)
    (tmp_path / "area.geojson").write_text(
        json.dumps(
            {
                "type": "Polygon",
                "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
                "coordinates": [[[5e5, 5.4e6], [500700, 5.4e6], [5e5, 5399300], [5e5, 5.4e6]]],
            }
        )
    )
    bundle = make_bundle(network=make_network(), tile=128)
    scene = make_scene(array, nodata=0, **UTM)
    report = predict_raster(scene, tmp_path / "a.tif", bundle, aoi=tmp_path / "area.geojson")
    found = read_mask(tmp_path / "a.tif")
    assert report.pruning.tiles_pruned == report.tiles_run == 1
    array[:, found == 255] = 0
    burned = make_scene(array, "burned.tif", nodata=0, **UTM)
    predict_raster(burned, tmp_path / "b.tif", bundle)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), found)


def test_off_leaves_the_bytes_of_a_network_that_takes_no_grid(
    make_bundle, make_network, holed, tmp_path
):
    scene, _, _ = holed()
    masks = []
    for kind, options in ((Dense, {}), (CVMHUNet, {"prune": "off"}), (CVMHUNet, {})):
        path = tmp_path / f"{len(masks)}.tif"
        bundle = make_bundle(network=make_network(kind), tile=96)
        report = predict_raster(scene, path, bundle, **options)
        assert (report.pruning is None) == (len(masks) < 2)
        masks.append(path.read_bytes())
    assert masks[0] == masks[1] != masks[2]
    with rasterio.open(tmp_path / "2.tif") as mask:
        assert mask.tags()["CVMH_PRUNE"] == "nodata"


def test_the_report_says_what_was_left_out_and_the_plan_what_will_be(
    make_bundle, make_network, holed, tmp_path
):
    scene, _, is_data = holed()
    bundle = make_bundle(network=make_network(), tile=96)
    plan = plan_prediction(scene, tmp_path / "m.tif", bundle, overlap=0)
    report = predict_raster(
        scene, tmp_path / "m.tif", bundle, overlap=0, report=tmp_path / "r.json"
    )
    shares = []
    for stripe in plan_tiles(*is_data.shape, tile=96, overlap=0).stripes():
        shares += [cells_one_by_one(is_data[w.rows, w.columns]).mean() for w in stripe.windows]
    work = [1 if share > DENSE_ABOVE else share for share in shares]
    ran = [share for share in work if share]
    pruned = [share for share in ran if share < 1]
    told = json.loads((tmp_path / "r.json").read_text())["pruning"]
    assert told["prune"] == "nodata"
    assert (told["tiles_pruned"], told["tiles_dense"]) == (len(pruned), len(ran) - len(pruned))
    assert told["mean_kept_share"] == pytest.approx(np.mean(ran))
    assert sum(told["tiles_by_cells"].values()) == len(pruned)
    assert told["estimated_seconds_saved"] == report.pruning.estimated_seconds_saved is not None
    assert plan.prune == "nodata" and plan.share_kept == pytest.approx(np.mean(work))
    assert f"{1 - np.mean(work):.0%} of the cells" in "\n".join(plan.lines())


@pytest.mark.parametrize("pruning", [NODATA, OFF])
def test_dense_tiles_fill_passes_over_those_without_data_and_pruned_ones(pruning):
    side, count = 256, 90
    plan = plan_tiles(side, side * count, tile=side, overlap=0)
    numbers = np.random.default_rng(0).permutation(count)[: count // 2]
    every = holed_tiles(count, side, plan)
    tiles = [every[number] for number in sorted(numbers)]
    for tile in tiles[::3]:
        tile.is_valid_HW[:] = True
    maker = PassMaker(plan, tiles_a_pass=2, transforms=(IDENTITY,), pruning=pruning, on_cpu=True)
    most = tiles_to_wait(side * side, 2, is_pruning=pruning == NODATA)
    arriving, found, passes = Counted(tiles), [], []

    for made in maker.passes(arriving):
        first = min(entry.number for entry in made.entries)
        assert arriving.came - 1 - first <= most
        found += [entry.number for entry in made.entries]
        if made.is_dense:
            passes.append(made)
            for place, entry in enumerate(made.places):
                assert entry is None or plan.columns[0].index(entry.tile.window.column) % 2 == place
    assert sorted(found) == list(range(len(tiles)))
    # As few as the fuller of both places allows, unless that would keep others waiting too long.
    places = Counter(place for made in passes for place, entry in enumerate(made.places) if entry)
    assert min(places.values()) >= 5
    if pruning == NODATA:
        assert len(passes) == max(places.values())
    else:
        assert len(passes) < len(tiles) * 0.7


def test_a_tile_of_which_the_network_chooses_cells_does_not_wait_for_others_on_the_cpu():
    side, count = 256, 30
    plan = plan_tiles(side, side * count, tile=side, overlap=0)
    tiles = holed_tiles(count, side, plan)
    pruning = Pruning(without_data=True, keep=0.5)
    maker = PassMaker(plan, tiles_a_pass=1, transforms=(IDENTITY,), pruning=pruning, on_cpu=True)
    arriving = Counted(tiles)

    for made in maker.passes(arriving):
        (entry,) = made.entries
        assert arriving.came - entry.number <= 2


def test_on_a_gpu_tiles_of_a_bucket_share_passes_of_one_shape():
    side, count = 256, 40
    plan = plan_tiles(side, side * count, tile=side, overlap=0)
    tiles = holed_tiles(count, side, plan)
    maker = PassMaker(plan, tiles_a_pass=4, transforms=(IDENTITY,), pruning=NODATA, on_cpu=False)
    arriving, numbers, shapes = Counted(tiles), [], set()

    for made in maker.passes(arriving):
        assert len(made.places) == 4
        assert arriving.came - min(entry.number for entry in made.entries) <= PASSES_TO_WAIT * 4 + 4
        numbers += [entry.number for entry in made.entries]
        if made.num_cells is not None:
            shapes.add(made.num_cells)
            assert all(entry.cells.num_kept <= made.num_cells for entry in made.entries)
    assert sorted(numbers) == list(range(count))
    assert shapes <= set(range(8, 65, 8)) and len(shapes) > 2


def test_kept_cells_are_rounded_up_to_eighths_of_a_tile():
    assert [Cells((), n, 64).bucket for n in (1, 8, 9, 64)] == [8, 8, 16, 64]
    assert [Cells((), n, 6).bucket for n in (1, 2, 6)] == [1, 2, 6]
    assert [Cells((), n, 100).bucket for n in (1, 14, 92, 100)] == [13, 26, 100, 100]


@pytest.mark.parametrize(
    "value", ["some", "0.5", 0, -0.1, 1.5, float("nan"), float("inf"), None, True, [0.5]]
)
def test_a_share_outside_0_to_1_and_unknown_modes_are_refused(make_bundle, tmp_path, value):
    with pytest.raises(ConfigError, match=r"prune must be off, nodata.* share of cells") as e:
        predict_raster(tmp_path / "no.tif", tmp_path / "m.tif", make_bundle(), prune=value)
    assert str(value) in str(e.value) and "\n" not in str(e.value)


def test_a_share_is_refused_where_the_network_cannot_or_was_not_trained_to(
    make_bundle, make_network, tmp_path
):
    def refusal(network):
        with pytest.raises(BundleError) as caught:
            bundle = make_bundle(network=network)
            predict_raster(tmp_path / "no.tif", tmp_path / "m.tif", bundle, prune=0.7)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "'stub' cannot prune tokens" in refusal(None)
    assert 'since its setting dct_size is "fixed"' in refusal(make_network(dct_size="fixed"))
    assert "must be trained to prune" in refusal(make_network())


@pytest.mark.parametrize("reinsert", ["frozen", "exit"])
def test_a_share_is_what_the_network_keeps_of_the_cells_with_data(
    make_bundle, make_network, reinsert
):
    network = make_network(pruning=PruningSettings(reinsert=reinsert))
    plan = plan_tiles(128, 128 * 8, tile=128, overlap=0)
    tiles = holed_tiles(8, 128, plan)
    pruning = choose_pruning(make_bundle(network=network), 0.5)
    assert pruning == Pruning(without_data=True, keep=0.5) and str(pruning) == "0.5"
    options = {"batch": 1, "device": "cpu", "precision": "fp32"}
    with Engine(make_bundle(network=network), plan, pruning=pruning, **options) as engine:
        found = list(engine.run(tiles))
    for scored in found:
        valid = scored.tile.is_valid_HW
        active = cells_one_by_one(valid)
        is_dense = active.mean() > DENSE_ABOVE
        there = active.size if is_dense else int(active.sum())
        assert (scored.cells.num_kept, scored.cells.total) == (count_kept(there, 0.5), 16)
        grid = WHOLE if is_dense else MaskedGrid(torch.from_numpy(active)[None])
        with torch.inference_mode():
            logits = network(torch.from_numpy(scored.tile.pixels_CHW)[None], grid, keep=0.5)
        difference = (scored.scores_KHW - logits.softmax(1)[0])[:, torch.from_numpy(valid)]
        assert difference.abs().max() < 1e-5


def test_a_network_that_cannot_prune_is_run_dense(make_bundle, make_network, holed, tmp_path):
    scene, _, _ = holed()
    for number, network in enumerate((None, make_network(dct_size="fixed"))):
        bundle = make_bundle(network=network, tile=96)
        report = predict_raster(scene, tmp_path / f"{number}.tif", bundle)
        assert report.pruning is None


def test_the_option_is_parsed_and_a_line_says_what_was_left_out(
    make_bundle, make_network, holed, tmp_path, capsys
):
    from click.testing import CliRunner

    from cvmh.cli.main import cli
    from cvmh.cli.predict import PRUNE_MODES
    from cvmh.models.bundle import save_bundle

    network = create_model("cvmh_unet_nano", bands=3, num_classes=len(ISPRS))
    card = make_bundle(tile=96).card.model_copy(update={"model": "cvmh_unet_nano"})
    save_bundle(tmp_path / "b.safetensors", network, card)
    scene = str(holed(130, 330)[0])
    given = [scene, "--checkpoint", str(tmp_path / "b.safetensors"), "--progress", "off", "-o"]
    done = CliRunner().invoke(
        cli, ["predict", *given, str(tmp_path / "m.tif")], catch_exceptions=False
    )
    assert done.exit_code == 0 and "tiles pruned" in done.output
    done = CliRunner().invoke(cli, ["predict", *given, str(tmp_path / "n.tif"), "--prune", "off"])
    assert done.exit_code == 0 and "pruned" not in done.output
    assert PRUNE_MODES == OF_LIBRARY
    done = CliRunner().invoke(cli, ["predict", *given, str(tmp_path / "o.tif"), "--prune", "auto"])
    assert done.exit_code == 1
    assert "must be trained to prune for --prune auto" in done.stderr
    for value in ("0", "1.1", "nan", "most"):
        done = CliRunner().invoke(
            cli, ["predict", *given, str(tmp_path / "o.tif"), "--prune", value]
        )
        assert done.exit_code == 2 and "a share of cells to keep, above 0" in done.output
