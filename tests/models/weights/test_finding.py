"""Weights by name: kept in a folder, with checksums, and fetched where that is allowed."""

import dataclasses
import threading
import urllib.parse
from pathlib import Path

import pytest
import torch

from cvmh.errors import WeightsError
from cvmh.files import digest
from cvmh.models.encoders import ENCODERS
from cvmh.models.weights import catalogue, finding
from cvmh.models.weights.catalogue import CATALOGUE, look_up
from cvmh.models.weights.finding import SUMS, find_weights, weights_folder

NAME = "vmamba_tiny_s1l8"
FILE = "vssm1_tiny_0230s_ckpt_epoch_264.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CVMH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("CVMH_OFFLINE", raising=False)
    return tmp_path / "weights"


@pytest.fixture
def content(tmp_path, published, flat):
    """Return a function that gives a published file of an encoder as bytes."""

    def get(name=NAME, family="vmamba"):
        torch.save({"model": flat(getattr(published, family)(name))}, tmp_path / "made.pth")
        return (tmp_path / "made.pth").read_bytes()

    return get


@pytest.fixture
def served(monkeypatch, content):
    """Stand in for the network: give the content of each address, and note what was asked."""
    asked, gives = [], {}

    def fetch(address, target, *, sha256, check, progress):
        asked.append(address)
        partial = target.with_name("partial")
        partial.write_bytes(gives.get("content") or content())
        try:
            check(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        progress("fetching", 1, 1, "MB")

    monkeypatch.setattr(finding, "fetch", fetch)
    return asked, gives


def test_each_published_file_is_of_an_encoder_and_named_once():
    assert {published.variant for published in CATALOGUE.values()} <= set(ENCODERS)
    assert set(CATALOGUE) >= {name for name in ENCODERS if not name.startswith("vim2")}
    assert len({published.file for published in CATALOGUE.values()}) == len(CATALOGUE)
    for published in CATALOGUE.values():
        parts = urllib.parse.urlsplit(published.address)
        assert parts.scheme == "https" and not parts.fragment
        assert Path(published.file).name == published.file


def test_addresses_are_those_that_the_publishers_name():
    assert look_up(NAME).address == (
        f"https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/{FILE}"
    )
    assert look_up("plainmamba_l2_ade20k").address.endswith("main/segmentation/l2_upernet.pth")
    mesa = look_up("vssd_tiny_mesa")
    assert (mesa.variant, mesa.licence) == ("vssd_tiny", "none stated")
    assert look_up(FILE) is CATALOGUE[NAME]


def test_a_name_is_fetched_once_and_its_checksum_kept(folder, served):
    asked, _ = served
    told = []
    found = find_weights(NAME, progress=lambda *row: told.append(row))
    assert found.path == folder / FILE and found.published is CATALOGUE[NAME]
    assert (folder / SUMS).read_text() == f"{digest(found.path)}  {FILE}\n"
    assert find_weights(FILE).path == found.path
    assert asked == [CATALOGUE[NAME].address] and told == [("fetching", 1, 1, "MB")]


def test_a_file_that_was_put_there_is_checked_and_its_checksum_kept(folder, served, content):
    folder.mkdir()
    (folder / FILE).write_bytes(content())
    find_weights(NAME, offline=True)
    assert FILE in (folder / SUMS).read_text()
    (folder / FILE).write_bytes(content("vmamba_tiny_s2l5"))
    with pytest.raises(WeightsError, match=r"it was [0-9a-f]{64}: the file has changed or is dam"):
        find_weights(NAME)
    (folder / SUMS).unlink()
    said = r"holds weights of 'vmamba_tiny_s2l5', not of 'vmamba_tiny_s1l8'; put the right file at"
    with pytest.raises(WeightsError, match=said):
        find_weights(NAME)
    (folder / FILE).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="is a Git-LFS pointer"):
        find_weights(NAME)
    # None of them was recorded, so the right one can take its place.
    (folder / FILE).write_bytes(content())
    assert find_weights(NAME).path == folder / FILE
    assert served[0] == []


def test_a_sha256_that_the_catalogue_knows_counts(folder, content, monkeypatch):
    known = dataclasses.replace(CATALOGUE[NAME], sha256="0" * 64)
    monkeypatch.setitem(catalogue.CATALOGUE, NAME, known)
    folder.mkdir()
    (folder / FILE).write_bytes(content())
    with pytest.raises(WeightsError, match=r"it was 0{64}"):
        find_weights(NAME)


def test_fetched_weights_of_another_variant_are_not_kept(folder, served, content):
    served[1]["content"] = content("vmamba_tiny_v0")
    with pytest.raises(WeightsError, match=r"github.* holds weights of 'vmamba_tiny_v0', not of"):
        find_weights(NAME)
    assert [path.name for path in folder.iterdir()] == [".fetching"]


@pytest.mark.parametrize("variable", [None, "1"])
def test_offline_nothing_is_fetched_and_the_place_of_the_file_is_told(
    folder, served, monkeypatch, variable
):
    if variable:
        monkeypatch.setenv("CVMH_OFFLINE", variable)
    said = rf"nothing is fetched with --offline.*they are at https://github.*put it at .*{FILE}$"
    with pytest.raises(WeightsError, match=said):
        find_weights(NAME, offline=variable is None)
    assert served[0] == [] and not folder.exists()


def test_a_path_is_taken_as_it_is(folder, served, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"anything")
    assert find_weights(str(tmp_path / "mine.pth")) == (tmp_path / "mine.pth", None)
    assert not folder.exists()


def test_an_unknown_name_names_the_nearest(folder):
    with pytest.raises(WeightsError, match=r"no file 'vmamba_tiny_s1l9', .*mean 'vmamba_tiny_s1l8"):
        find_weights("vmamba_tiny_s1l9")
    with pytest.raises(WeightsError, match=r"no file '/nowhere/at/all', and no .*known: vmamba"):
        find_weights("/nowhere/at/all")


def test_a_folder_or_an_address_in_place_of_a_file_is_told(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"^weights '.*' are a folder; give a file in it"):
        find_weights(str(tmp_path))
    with pytest.raises(WeightsError, match=r"the address https://a\.b/x\.bin; .*known: vmamba"):
        find_weights("https://a.b/x.bin")
    with pytest.raises(WeightsError, match=r"did you mean 'vssd_micro_best\.pth'\?$"):
        find_weights("https://huggingface.co/YuhengSSS/VSSD/resolve/main/vssd_micro_best.pth")
    assert not folder.exists()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/w.pth", "w" * 300])
def test_a_path_that_no_disk_can_have_is_told(folder, name):
    with pytest.raises(WeightsError, match=rf"^weights '{name}' cannot be looked for \(.+\)$"):
        find_weights(name)


def test_damaged_checksums_are_told(folder, served):
    find_weights(NAME)
    for damaged in (b"half a line\nx\n", b"\xff\xfe\0"):
        (folder / SUMS).write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"SHA256SUMS is damaged; remove it"):
            find_weights(NAME)


def test_a_folder_of_the_same_name_does_not_stand_in_the_way(folder, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert find_weights(NAME).path == folder / FILE


def test_a_name_in_capitals_names_the_right_one():
    with pytest.raises(WeightsError, match=r"did you mean 'vssd_micro'\?$"):
        look_up("VSSD_Micro")


def test_processes_that_start_together_fetch_once(folder, served):
    threads = [threading.Thread(target=find_weights, args=(NAME,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served[0]) == 1 and find_weights(NAME).path.exists()


def test_the_folder_lies_in_the_cache_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CVMH_CACHE", str(tmp_path))
    monkeypatch.delenv("CVMH_WEIGHTS", raising=False)
    assert weights_folder() == tmp_path / "weights"
    monkeypatch.setenv("CVMH_WEIGHTS", "/elsewhere")
    assert str(weights_folder()) == "/elsewhere"
