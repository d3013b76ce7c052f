"""Files of published weights, read into plain tensors without running what a file may hold."""

import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cvmh.errors import WeightsError
from cvmh.files import digest
from cvmh.models.weights import unpickling

# Where training programs keep weights in their files, best first; averaged ones score better.
NESTED = ("model_ema", "state_dict_ema", "model", "state_dict")
FLAT = "the file itself"
# What torch.save has written since 2020, and before.
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
LFS_POINTER = b"version https://git-lfs.github.com/"
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
HEAD = 512
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The tensors of a file under their published names, and the key that they were taken from."""

    path: Path
    tensors: Mapping[str, Tensor]
    taken: str
    sha256: str


def read_weights(path: str | Path) -> WeightsFile:
    """Read a .pth, .pt or .safetensors file; of a training's file, the weights.

    Nothing that a file may ask for is run: what is no tensor and no plain container is left out.

    Raises:
        WeightsError: the file is missing, cut short, a page or a pointer instead of weights, or
            holds no tensors, or some that are not finite.
    """
    source = Path(path)
    if source.is_dir():
        raise WeightsError(f"weights {source} are a folder; give a file in it")
    if not source.is_file():
        raise WeightsError(f"weights {source} do not exist; give a .pth, .pt or .safetensors file")
    head = _head(source)
    _refuse_other_things(source, head)
    if _is_safetensors(head):
        content: Any = _read_safetensors(source)
    elif head.startswith((ZIP, PICKLE)):
        content = _read_pickled(source, is_zip=head.startswith(ZIP))
    else:
        raise WeightsError(
            f"{source} is not a file of weights: it begins with {head[:12]!r}, and neither as "
            ".pth or .pt nor as .safetensors files do"
        )
    taken, tensors = _choose(source, content)
    _refuse_not_finite(source, tensors)
    return WeightsFile(path=source, tensors=tensors, taken=taken, sha256=digest(source))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read ({error.strerror})") from error


def _refuse_other_things(path: Path, head: bytes) -> None:
    """Refuse what is often found in place of weights."""
    if not head:
        raise WeightsError(f"{path} is empty; fetch it again")
    if head.startswith(LFS_POINTER):
        raise WeightsError(
            f"{path} is a Git-LFS pointer, not the weights that it points to; fetch those with "
            "'git lfs pull', or through the file's page"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        raise WeightsError(
            f"{path} is a web page, not weights: the address that it came from asks for a login "
            "or a click; fetch the file with a browser"
        )
    # torch.load would unpack it.
    if not head.startswith(ZIP) and tarfile.is_tarfile(path):
        raise WeightsError(f"{path} is a tar archive; unpack it and give the file of weights")
    for start, program in COMPRESSED.items():
        if head.startswith(start):
            raise WeightsError(
                f"{path} is compressed by {program}; unpack it and give the file of weights"
            )


def _is_safetensors(head: bytes) -> bool:
    # The length of the header in 8 bytes, and the header, which is JSON.
    return len(head) > 8 and head[8:9] == b"{" and head[5:8] == b"\0\0\0"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "cvmh" in (file.metadata() or {}):
                raise WeightsError(
                    f"{path} is a bundle of cvmh, not published weights; give it as model.init"
                )
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is cut short or damaged ({_brief(error)}); fetch it again"
        ) from error


def _read_pickled(path: Path, *, is_zip: bool) -> Any:
    if is_zip and not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path} is cut short: it has {path.stat().st_size} bytes, and its end is missing; "
            "fetch it again"
        )
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            # Old formats are no matter for users; for TorchScript torch would start its loader of
            # programs.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*TorchScript")
            return torch.load(
                stream,
                map_location="cpu",
                weights_only=False,
                pickle_module=unpickling,
                encoding="latin1",
            )
    except UserWarning as error:
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds a program; save its state_dict"
        ) from error
    # A damaged pickle may fail with anything.
    except Exception as error:
        raise WeightsError(
            f"{path} is cut short, damaged or no file of weights ({_brief(error)}); fetch it again"
        ) from error


def _choose(path: Path, content: Any) -> tuple[str, dict[str, Tensor]]:
    """Return the weights among what a file holds, and the key that they were under."""
    if isinstance(content, Mapping):
        for key in NESTED:
            if tensors := _tensors(content.get(key)):
                return key, tensors
        if tensors := _tensors(content):
            return FLAT, tensors
    kind = (
        f"the keys {', '.join(map(str, list(content)[:8]))}"
        if isinstance(content, Mapping)
        else "another object"
    )
    raise WeightsError(
        f"{path} holds no tensors by name, neither flat nor under {', '.join(NESTED)}, but {kind}; "
        "save the network's state_dict"
    )


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _refuse_not_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{path} is damaged: {name} has values that are not finite; fetch it again"
            )


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
