import argparse
import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cvmh.errors import WeightsError
from cvmh.files import digest
from cvmh.models.bundle import load_bundle
from cvmh.models.weights.reading import FLAT, read_weights


class CfgNode(dict):
    """Pickled like yacs's: a dictionary of a class of its own, with attributes."""

    def __init__(self, content):
        super().__init__(content)
        self.__dict__["frozen"] = True


class Bomb:
    """Runs a command where its pickle is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return OrderedDict(
        [
            ("stem.weight", torch.randn(4, 3, 2, 2, generator=generator)),
            ("norm.num_batches_tracked", torch.tensor(7)),
            ("half", torch.randn(3, 5, generator=generator).half().T),
        ]
    )


def training_dict(weights, **more):
    network = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"last": np.float64(0.5), "kinds": {"a", "b"}},
        "max_accuracy": np.float64(82.6),
        "table": np.arange(3),
        "config": CfgNode({"MODEL": CfgNode({"NAME": "vssm"})}),
        "args": argparse.Namespace(lr=1e-3, path=Path("x")),
        "epoch": 262,
        **more,
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("taken", ["model", "model_ema", "state_dict", FLAT])
def test_weights_are_found_among_what_a_training_leaves(tmp_path, weights, taken, is_zip):
    others = OrderedDict((key, torch.zeros(1)) for key in weights)
    content = {
        "model": training_dict(weights),
        "model_ema": training_dict(others, model_ema=weights),
        "state_dict": {"state_dict": weights, "meta": {"config": CfgNode({}), "iter": 1}},
        FLAT: weights,
    }[taken]
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    file = read_weights(tmp_path / "w.pth")
    assert file.taken == taken
    assert_same(file.tensors, weights)
    assert file.sha256 == digest(tmp_path / "w.pth")


def test_parameters_and_shared_tensors_come_back_as_plain_tensors(tmp_path):
    shared = torch.arange(6.0)
    content = {"a": nn.Parameter(shared[:4].view(2, 2)), "b": shared[2:], "bf": shared.bfloat16()}
    torch.save(content, tmp_path / "w.pth")
    tensors = read_weights(tmp_path / "w.pth").tensors
    assert all(type(tensor) is torch.Tensor for tensor in tensors.values())
    assert_same(tensors, {key: value.detach() for key, value in content.items()})


def test_published_sizes_may_be_views_of_one_number(tmp_path):
    torch.save({"model": {"w": torch.zeros(1).expand(512, 512)}}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").tensors["w"].shape == (512, 512)


def test_safetensors_are_read_whatever_the_name(tmp_path, weights):
    plain = {key: value.contiguous() for key, value in weights.items()}
    save_file(plain, tmp_path / "w.pth")
    file = read_weights(tmp_path / "w.pth")
    assert file.taken == FLAT and dict(file.tensors).keys() == plain.keys()
    for key, value in plain.items():
        assert torch.equal(file.tensors[key], value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_nothing_that_a_pickle_asks_for_is_run(tmp_path, weights, is_zip):
    mark = tmp_path / "ran"
    content = training_dict(weights, config=Bomb(f"touch {mark}"))
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=is_zip)
    assert_same(read_weights(tmp_path / "evil.pth").tensors, weights)
    assert not mark.exists()
    # The same file does run it where it is trusted.
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("torch.serialization", "load"),
        ("pickle", "loads"),
        ("functools", "partial"),
    ],
)
def test_no_function_can_be_named_but_those_that_rebuild_tensors(name):
    from cvmh.models.weights import unpickling

    module, function = (part.encode() for part in name)
    program = b"\x80\x02c" + module + b"\n" + function + b"\nX\x02\x00\x00\x00ls\x85R."
    assert isinstance(unpickling.load(io.BytesIO(program)), unpickling.Inert)


def test_a_program_in_the_place_of_weights_is_refused(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bomb(f"touch {mark}"), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        read_weights(tmp_path / "evil.pth")
    assert not mark.exists()


def test_a_network_pickled_as_a_whole_says_to_save_its_state_dict(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds no tensors by name.*save the network's state_d"):
        read_weights(tmp_path / "w.pth")
    torch.save({"epoch": 1, "net": nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"but the keys epoch, net; save"):
        read_weights(tmp_path / "w.pth")


def test_a_torchscript_archive_is_not_run(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"w/{name}", b"3\n")
    with pytest.raises(WeightsError, match=r"is a TorchScript archive, which holds a program"):
        read_weights(tmp_path / "w.pt")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


FOUND_INSTEAD = {
    "empty": (b"", r"w\.pth is empty; fetch it again"),
    "git-lfs": (POINTER, r"is a Git-LFS pointer, not the weights.*git lfs pull"),
    "web-page": (b"<!DOCTYPE html><html><body>Sign in", r"is a web page, not weights"),
    "web-page-after-blanks": (b"\n  <HTML lang='en'>", r"is a web page, not weights"),
    "json": (b'{"error": "Not found"}', r"is not a file of weights: it begins with b'\{\"error\""),
    "another-format": (b"II*\x00 a picture", r"is not a file of weights"),
    "gzip": (gzip.compress(b"weights"), r"is compressed by gzip; unpack it and give the file"),
    "bzip2": (bz2.compress(b"weights"), r"is compressed by bzip2"),
    "xz": (lzma.compress(b"weights"), r"is compressed by xz"),
    "cut-short": (b"\x80\x02 garbage", r"is cut short, damaged or no file of weights"),
}


@pytest.mark.parametrize(("content", "said"), FOUND_INSTEAD.values(), ids=FOUND_INSTEAD)
def test_what_is_found_in_place_of_weights_is_named(tmp_path, content, said):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_and_an_archive_around_it_are_named(tmp_path, weights):
    with pytest.raises(WeightsError, match=r"nowhere\.pth do not exist; give a \.pth"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match=r" are a folder; give a file in it$"):
        read_weights(tmp_path)
    torch.save(weights, tmp_path / "w.pth")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"is a tar archive; unpack it"):
        read_weights(tmp_path / "w.tar")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_that_ends_early_is_never_taken(tmp_path, kind, share):
    path, weights = tmp_path / "w.pth", {f"layer{i}": torch.randn(50) for i in range(20)}
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"is cut short.*fetch it again"):
        read_weights(path)


def test_values_that_are_not_finite_are_named(tmp_path):
    torch.save({"model": {"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan])}}, tmp_path / "w")
    with pytest.raises(WeightsError, match=r"w is damaged: b has values that are not finite"):
        read_weights(tmp_path / "w")


def test_a_bundle_is_no_published_file(tiny_bundle):
    assert load_bundle(tiny_bundle)
    with pytest.raises(WeightsError, match=r"is a bundle of cvmh.*give it as model\.init"):
        read_weights(tiny_bundle)
