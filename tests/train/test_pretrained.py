"""Runs that start from published weights."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cvmh.errors import ConfigError, WeightsError
from cvmh.models.weights import finding
from cvmh.train import train
from cvmh.train.run import check

SPEC = Path(__file__).parents[1] / "published_weights.py"
DEPTHS = (1, 1, 1, 1)
MODEL = {
    "name": "cvmh_unet",
    "settings": {
        "widths": [8, 16, 32, 64],
        "encoder_depths": DEPTHS,
        "decoder_depths": DEPTHS,
        "stem_widths": None,
    },
}
STILL = {"epochs": 1, "learning_rate": 1e-30, "final_learning_rate": 0}


@pytest.fixture
def published_file(tmp_path):
    """Return the path of a file of a tiny VMamba v0, as those of the first months are."""
    spec = importlib.util.spec_from_file_location("published_weights", SPEC)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = module.vmamba_of("v0", 8, 2, DEPTHS, style="january")
    generator = torch.Generator().manual_seed(0)
    tensors = {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save({"model": tensors, "epoch": 292}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def read_facts(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_starts_with_published_weights_and_keeps_what_is_said_of_them(
    tmp_path, make_config, published_file, caplog
):
    caplog.set_level("INFO", logger="cvmh")
    config = make_config(model={**MODEL, "pretrained": str(published_file)}, train=STILL)
    result = train(config, tmp_path / "run", device="cpu")
    published, state = torch.load(published_file)["model"], load_file(result.bundle)
    torch.testing.assert_close(state["stem.project.weight"], published["patch_embed.proj.weight"])
    torch.testing.assert_close(
        state["encoder.3.blocks.0.scan.mixer.out_proj.weight"],
        published["layers.3.blocks.0.self_attention.out_proj.weight"],
    )
    facts = read_facts(tmp_path / "run")["pretrained"]
    assert facts["file"] == str(published_file) and facts["taken"] == "model"
    assert facts["loaded"] == 65 and facts["random"]["decoder"] > 0
    assert len(facts["sha256"]) == 64 and facts["licence"] is None
    assert f"weights from {published_file}: 65 tensors loaded (from model); rows and" in caplog.text


def test_a_resumed_run_does_not_read_them_again_and_remembers_them(
    tmp_path, make_config, published_file
):
    rows = []

    def stop_in_second_epoch(row):
        rows.append(row)
        if len(rows) == 2:
            raise KeyboardInterrupt

    config = make_config(model={**MODEL, "pretrained": str(published_file)})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", report=stop_in_second_epoch)
    published_file.unlink()
    train(config, tmp_path / "run", device="cpu", resume=True)
    assert read_facts(tmp_path / "run")["pretrained"]["file"] == str(published_file)


def test_offline_nothing_is_fetched(tmp_path, make_config, monkeypatch):
    monkeypatch.setenv("CVMH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(finding, "fetch", lambda *given, **named: pytest.fail("fetched"))
    config = make_config(model={**MODEL, "pretrained": "vmamba_tiny_v0"})
    with pytest.raises(WeightsError, match=r"nothing is fetched with --offline or CVMH_OFFLINE"):
        train(config, tmp_path / "run", device="cpu", offline=True)
    with pytest.raises(WeightsError, match=r"put it at .*weights/vssmtiny_dp01_ckpt_epoch_292"):
        check(config, tmp_path / "run", offline=True)
    assert not (tmp_path / "run").exists() and not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ({"pretrained": "vmamba_tiny_v9"}, WeightsError, r"did you mean 'vmamba_tiny_v0'"),
        ({"pretrained": "vssd_tiny"}, WeightsError, r"'vssd_tiny' are of 'vssd_tiny', the network"),
        (
            {"name": "unet_resnet18", "settings": {}, "pretrained": "vssd_tiny"},
            ConfigError,
            r"model\.pretrained needs a network with an encoder of cvmh, \w+ has none",
        ),
    ],
)
def test_weights_that_cannot_fit_are_refused_before_anything_is_made(
    tmp_path, make_config, monkeypatch, model, error, said
):
    monkeypatch.setattr(finding, "fetch", lambda *given, **named: pytest.fail("fetched"))
    config = make_config().model_copy(
        update={"model": make_config().model.model_copy(update={**MODEL, **model})}
    )
    with pytest.raises(error, match=said):
        train(config, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_bundle_and_published_weights_exclude_each_other(make_config):
    with pytest.raises(ConfigError, match=r"init and pretrained exclude each other; leave one"):
        make_config(model={"init": "a.safetensors", "pretrained": "vssd_tiny"})
