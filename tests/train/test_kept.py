"""Which network a run keeps, and what it says where it cannot go on."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cvmh.errors import ConfigError, TrainingError
from cvmh.geo.raster import Raster, write_raster
from cvmh.models.bundle import read_card
from cvmh.train import run as run_module
from cvmh.train import train
from cvmh.train.losses import SegmentationLoss


def rows_of(run):
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def seen_modules(monkeypatch):
    """Keep the modules of the runs of a test."""
    modules, scored = [], run_module.SegmentationModule.on_validation_epoch_end

    def remember(module):
        scored(module)
        modules.append(module)

    monkeypatch.setattr(run_module.SegmentationModule, "on_validation_epoch_end", remember)
    return modules


def test_the_last_epoch_is_kept_where_it_is_wanted(tmp_path, make_config):
    config = make_config(train={"epochs": 3, "select": "last"})
    result = train(config, tmp_path / "run", device="cpu")
    assert result.scores["epoch"] == 3
    assert read_card(result.bundle).scores["miou"] == pytest.approx(result.scores["val_miou"])
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    for name, weight in load_file(result.bundle).items():
        assert torch.equal(weight, kept[f"network.{name}"])


def test_without_validation_the_last_epoch_is_kept(tmp_path, make_config):
    config = make_config(data={"val_split": None})
    result = train(config, tmp_path / "run", device="cpu")
    assert result.scores["epoch"] == result.epochs == 2
    assert not any(name.startswith("val_") for name in rows_of(tmp_path / "run")[0])
    assert read_card(result.bundle).scores == {}


def test_patience_without_validation_is_refused(tmp_path, make_config):
    config = make_config(data={"val_split": None}, train={"patience": 2})
    with pytest.raises(ConfigError, match=r"train.patience needs validation; set data.val_split"):
        train(config, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_average_is_validated_and_is_what_the_bundle_holds(tmp_path, make_config, seen_modules):
    config = make_config(train={"epochs": 1, "ema": 0.9})
    result = train(config, tmp_path / "run", device="cpu")
    (module,) = seen_modules
    average, network = module.average.module.state_dict(), module.network.state_dict()
    weights = load_file(result.bundle)
    assert weights.keys() == network.keys()
    assert all(torch.equal(weights[name], average[name]) for name in weights)
    assert not all(torch.equal(weights[name], network[name]) for name in weights)


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def cpu_is_full():
    torch.empty(1 << 60, dtype=torch.uint8)


def python_is_full():
    raise MemoryError


@pytest.mark.parametrize("fail", [out_of_memory, cpu_is_full, python_is_full])
def test_a_batch_that_does_not_fit_is_told_with_the_settings_that_would(
    tmp_path, make_config, monkeypatch, fail
):
    monkeypatch.setattr(SegmentationLoss, "forward", lambda self, logits, labels: fail())
    config = make_config(data={"tile": 64}, train={"accumulate": 3})
    with pytest.raises(TrainingError) as caught:
        train(config, tmp_path / "run", device="cpu")
    place = "the GPU" if fail is out_of_memory else "this machine"
    assert str(caught.value) == (
        f"a batch of 4 tiles of 64 x 64 pixels does not fit in the memory of {place}; use "
        "data.batch=2 with train.accumulate=6, or data.tile=32"
    )


def test_where_nothing_can_be_made_smaller_another_network_is_suggested(
    tmp_path, make_config, monkeypatch
):
    # Before the network is asked, whose norms need more than one value.
    module = run_module.SegmentationModule
    monkeypatch.setattr(module, "training_step", lambda self, *batch: python_is_full())
    with pytest.raises(TrainingError, match=r"this machine; choose a smaller network$"):
        train(make_config(data={"batch": 1}), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("tile", "ways"), [(32, "data.batch=2, or data.tile=64"), (64, "data.batch=2")]
)
def test_a_batch_too_small_for_batch_norm_is_told_with_the_settings_that_would_do(
    tmp_path, make_config, monkeypatch, tile, ways
):
    def pool(self, logits, labels):
        return torch.nn.BatchNorm2d(3)(logits.mean(dim=(2, 3), keepdim=True)).mean()

    # The deepest maps of a tile of 32 pixels have one, without any pooling.
    if tile > 32:
        monkeypatch.setattr(SegmentationLoss, "forward", pool)
    with pytest.raises(TrainingError) as caught:
        train(make_config(data={"batch": 1, "tile": tile}), tmp_path / "run", device="cpu")
    assert str(caught.value) == (
        f"data.batch=1 with data.tile={tile} leaves some batch norm of the network a single value "
        f"a channel, and it needs two; use {ways}"
    )


def test_another_error_of_torch_is_not_taken_for_a_full_memory(tmp_path, make_config, monkeypatch):
    def fail(self, logits, labels):
        raise RuntimeError("something else")

    monkeypatch.setattr(SegmentationLoss, "forward", fail)
    with pytest.raises(RuntimeError, match="something else"):
        train(make_config(), tmp_path / "run", device="cpu")


def test_pixels_that_are_not_a_number_give_finite_losses_and_scores(
    tmp_path, make_config, make_data
):
    root = make_data()
    for number in range(4):
        path = root / "images" / f"s{number}.tif"
        with Raster(path) as raster:
            pixels, grid = raster.read().astype("float32"), (raster.crs, raster.transform)
        pixels[:, 10:20, 10:20] = np.nan
        pixels[0, 40:50, 40:50] = np.inf
        write_raster(path, pixels, crs=grid[0], transform=grid[1])
    terms = {"cross_entropy": 1, "dice": 1, "lovasz": 1, "boundary": 1}
    config = make_config(root, train={"loss": terms, "label_smoothing": 0.1, "ema": 0.9})
    result = train(config, tmp_path / "run", device="cpu")
    assert all(
        np.isfinite(float(value)) for row in rows_of(tmp_path / "run") for value in row.values()
    )
    assert all(torch.isfinite(weight).all() for weight in load_file(result.bundle).values())
