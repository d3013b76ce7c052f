"""``cvmh train`` from published weights."""

import pytest

DATA = ("train", "--dataset", "folder", "--model", "cvmh_unet")


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Keep weights in a folder of the test's own."""
    monkeypatch.setenv("CVMH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("CVMH_OFFLINE", raising=False)
    return tmp_path / "weights"


def test_offline_the_place_of_the_file_is_told_in_one_line(cvmh, easy_data, weights, tmp_path):
    run = ("--data", easy_data, "--out", tmp_path / "run")
    outcome = cvmh(*DATA, *run, "--offline", "--set", "model.pretrained=vmamba_tiny_v0")
    assert (outcome.code, outcome.stdout) == (1, "")
    *_, line = outcome.stderr.splitlines()
    file = weights / "vssmtiny_dp01_ckpt_epoch_292.pth"
    assert line.startswith(f"cvmh: error: weights {file} are not there, and nothing is fetched")
    assert "https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/" in line
    assert line.endswith(f"put it at {file}")
    assert not (tmp_path / "run").exists()


def test_an_unknown_name_is_told_with_the_nearest(cvmh, easy_data, weights, tmp_path):
    run = ("--data", easy_data, "--out", tmp_path / "run")
    outcome = cvmh(*DATA, *run, "--set", "model.pretrained=vmamba_tiny_v00")
    assert outcome.code == 1 and "did you mean 'vmamba_tiny_v0'?" in outcome.stderr
