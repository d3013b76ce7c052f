"""What a prediction's result depends on, so that finished work is known again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cvmh.geo.raster import Raster
from cvmh.models.bundle import Bundle, versions
from cvmh.predict.journal import MOMENT


def scene_identity(raster: Raster) -> dict[str, Any]:
    """Return what tells a scene from another: its facts, and the sizes of its files."""
    sizes = {path.name: path.stat().st_size for path in raster.files if path.is_file()}
    # A file may be moved; of a scene elsewhere only its whole address tells it from others.
    name = Path(raster.path).name if raster.is_local else raster.path
    return {"name": name, "shape": list(raster.shape), "files": sizes}


def scene_moment(raster: Raster) -> int:
    """Return when the files of a scene changed last, in ns; 0 where they are not on this disk."""
    return max((path.stat().st_mtime_ns for path in raster.files if path.is_file()), default=0)


def bundle_identity(bundle: Bundle) -> str:
    """Return a digest of a network's card and weights."""
    digest = hashlib.sha256(bundle.card.model_dump_json().encode())
    for name, tensor in sorted(bundle.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def file_identity(path: str | Path) -> str:
    """Return a digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def key_of(settings: Mapping[str, Any]) -> str:
    """Return the digest of all that a result depends on; a mask carries it in a tag."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def of_this_moment(settings: Mapping[str, Any], raster: Raster) -> dict[str, Any]:
    """Return settings with what must be the same for unfinished work to be continued."""
    return {**settings, MOMENT: scene_moment(raster), "versions": versions()}
