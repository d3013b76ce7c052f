"""Every YAML of configs/ loads, builds its network, and takes a step."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from cvmh.config import RunConfig
from cvmh.datasets import KNOWN
from cvmh.models.cvmh_unet import CVMHUNetSettings
from cvmh.models.zoo import create_model
from cvmh.settings import merge, validate
from cvmh.train import train

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "ablations"
)
TABLES = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))
# Of the layouts of a set, one in which its splits, bands and labels are as published.
LAYOUTS = {"potsdam": "isprs-rgb", "isaid": "mmseg"}
SMALL = {
    "data": {"tile": 32, "batch": 2, "crops_per_epoch": 4, "workers": 0},
    "train": {"epochs": 1, "minutes": None, "calibrate": False},
}


def name_of(path):
    return path.relative_to(ROOT / "configs").with_suffix("").as_posix()


@pytest.fixture(scope="session")
def tables():
    """Return the tables of configs/ablations as tools/ablations.py reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec = importlib.util.spec_from_file_location("ablations", ROOT / "tools" / "ablations.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return {path: module.read_table(path) for path in TABLES}


def build(config):
    """Return the network of a config as it is, without memory for its weights."""
    with torch.device("meta"):
        return create_model(config.model.name, **config.model.settings)


def take_a_step(config, tiny, root, out):
    # The fakes leave out tiles that are many.
    place = {"root": str(root), "partial": config.data.dataset != "folder"}
    # Networks of smp keep the channels of their encoders.
    tiny = tiny if config.model.name.startswith("cvmh_unet") else {"decoder_channels": 16}
    small = merge(
        config.model_dump(mode="json"), SMALL, {"data": place, "model": {"settings": tiny}}
    )
    return train(validate(RunConfig, small, source="test"), out, device="cpu")


def test_every_known_set_has_a_config_as_published_and_a_strong_one():
    names = {name_of(path) for path in CONFIGS}
    assert {f"{name}/{style}" for name in KNOWN for style in ("paper", "strong")} <= names


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_loads_and_builds_its_network(path):
    config = RunConfig.read(path)
    assert sum(weights.numel() for weights in build(config).parameters()) > 100_000
    if path.parent.name in KNOWN:
        assert config.data.dataset == path.parent.name


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_takes_a_step_on_its_data_set(path, fake_set, easy_data, make_config, tmp_path):
    config = RunConfig.read(path)
    name = config.data.dataset
    root = easy_data
    if name != "folder":
        root = fake_set(name, LAYOUTS.get(name, KNOWN[name].layouts[0].name))
    result = take_a_step(config, make_config().model.settings, root, tmp_path / "run")
    assert result.steps >= 1 and result.bundle.exists()


@pytest.mark.parametrize("path", TABLES, ids=name_of)
def test_the_rows_of_a_table_have_as_many_parameters_as_were_published(path, tables):
    for row in tables[path].rows:
        if row.settings is not None and "parameters" in row.published:
            modules = list(build(tables[path].config(row)).modules())
            # As the authors' counter does it: tensors that lie in no leaf are not seen.
            leaves = [part for part in modules if not list(part.children())]
            count = sum(weights.numel() for leaf in leaves for weights in leaf.parameters())
            assert count / 1e6 == pytest.approx(row.published["parameters"], abs=0.005), row.name


@pytest.mark.parametrize("path", TABLES, ids=name_of)
def test_a_table_has_a_row_of_ours_that_loads_and_figures_for_each(path, tables):
    table = tables[path]
    ours = [table.config(row) for row in table.rows if row.settings is not None]
    assert ours and all(config.model.name == "cvmh_unet" for config in ours)
    assert all(20 < row.published["miou"] < 100 for row in table.rows)


def test_the_rows_of_the_ablations_differ_and_the_last_is_the_whole_network(tables):
    for path in TABLES[2:]:
        rows = tables[path].rows
        settings = [settings_of(tables[path].config(row)) for row in rows]
        assert len({str(entry) for entry in settings}) == len(rows)
    for path in (TABLES[2], TABLES[5]):
        table = tables[path]
        assert settings_of(table.config(table.rows[-1])) == settings_of(RunConfig())


def settings_of(config):
    """Return every setting of CVMH-UNet, those that were left out too."""
    return CVMHUNetSettings(**config.model.settings)
