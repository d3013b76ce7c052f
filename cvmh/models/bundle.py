"""A bundle: a trained network in one safetensors file with everything needed to use it."""

import json
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_serializer, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from cvmh.classes import ClassTable
from cvmh.errors import BundleError, ConfigError
from cvmh.files import write_complete
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.calibration import Calibration
from cvmh.models.zoo import create_model
from cvmh.settings import Settings, validate
from cvmh.version import VERSION

# The key of the header in the safetensors metadata, and the layout it is written in.
HEADER_KEY = "cvmh"
FORMAT = 1
# Networks bear pixels that are somewhat larger or smaller than those of training.
MAX_GSD_FACTOR = 1.5


class BundleCard(Settings):
    """The header of a bundle: how its network was made and what its input must be.

    ``mean`` and ``std`` are per band, in the units of the raster's ``dtype``; ``gsd`` is the
    ground sampling distance of training in metres per pixel; ``tile`` is in pixels. ``splits``
    names the table that divides the data set, ``train_split`` and ``val_split`` what of it the
    weights were fitted to and selected on; all three are empty where that is not known. Scores
    are the softmax of the network's output over ``temperature``; ``calibration`` says what that
    did, None where it was not fitted. ``area_sample`` is what areas are estimated from. ``scores``
    are those of the validation, of a network that chooses cells with the share ``keep`` of them;
    temperature, calibration and sample are of the dense network.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    format: int = FORMAT
    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    classes: ClassTable
    band_names: tuple[str, ...] = Field(min_length=1)
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    gsd: float | None = None
    tile: int = 256
    temperature: float = Field(1.0, gt=0)
    calibration: Calibration | None = None
    area_sample: AreaSample | None = None
    dataset: str = ""
    data_fingerprint: str = ""
    splits: str = ""
    train_split: str = ""
    val_split: str = ""
    scores: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    def is_far_from(self, gsd: float | None) -> bool:
        """Return whether pixels of ``gsd`` metres are much larger or smaller than in training."""
        if gsd is None or self.gsd is None:
            return False
        return not 1 / MAX_GSD_FACTOR <= gsd / self.gsd <= MAX_GSD_FACTOR

    @field_validator("classes", mode="before")
    @classmethod
    def _read_classes(cls, value: Any) -> ClassTable:
        return value if isinstance(value, ClassTable) else ClassTable.from_json(value)

    @field_validator("mean", "std")
    @classmethod
    def _check_scaling(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        names = info.data.get("band_names", values)
        if len(values) != len(names):
            raise ValueError(f"there must be one number for each of {len(names)} bands")
        if info.field_name == "std" and min(values) <= 0:
            raise ValueError("every deviation must be above 0")
        return values

    @field_validator("area_sample")
    @classmethod
    def _check_sample(cls, value: AreaSample | None, info: ValidationInfo) -> AreaSample | None:
        if value is not None and "classes" in info.data:
            value.counts(len(info.data["classes"]))
        return value

    @field_serializer("classes")
    def _write_classes(self, value: ClassTable) -> list[dict[str, Any]]:
        return value.to_json()


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A network in eval mode, its card, and the file that it came from."""

    network: nn.Module
    card: BundleCard
    path: Path | None = None


def save_bundle(
    path: str | Path,
    network: nn.Module,
    card: BundleCard,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a network and its card to one safetensors file, complete or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        network: its ``state_dict`` is written.
        card: the header; ``card.model`` and ``card.settings`` must rebuild the network.
        weights: written in place of those that the network holds.

    Raises:
        OutputError: the file cannot be written.
    """
    state = network.state_dict() if weights is None else weights
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_complete(Path(path), save(kept, metadata={HEADER_KEY: card.model_dump_json()}))


def read_card(path: str | Path) -> BundleCard:
    """Read only the header of a bundle.

    Raises:
        BundleError: the file is missing, is not a bundle, or is newer than this program.
    """
    with _opened(Path(path)) as file:
        return _card(Path(path), file.metadata())


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle and build its network in eval mode, on the CPU.

    Raises:
        BundleError: the file is missing, is not a bundle, is newer than this program, or its
            weights do not fit the network that its header names.
    """
    source = Path(path)
    with _opened(source) as file:
        card = _card(source, file.metadata())
        weights = {name: file.get_tensor(name) for name in file.keys()}
    network = _build(source, card)
    _check_names(source, card, network.state_dict().keys(), weights.keys())
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        # torch lists every weight that is of another size, which may be hundreds.
        first = textwrap.shorten(str(error).splitlines()[1], 200, placeholder=" ...")
        raise BundleError(
            f"bundle {source} does not fit network '{card.model}': {first}"
        ) from error
    return Bundle(network=network.eval(), card=card, path=source)


def versions() -> dict[str, str]:
    """Return the versions that a bundle or a run records."""
    return {"cvmh": VERSION, "torch": torch.__version__}


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise BundleError(
            f"bundle {path} does not exist; train one with 'cvmh train' or 'cvmh demo'"
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path} is not a bundle (a safetensors file written by cvmh): {error}"
        ) from error


def _card(path: Path, metadata: Mapping[str, str] | None) -> BundleCard:
    text = (metadata or {}).get(HEADER_KEY)
    if text is None:
        raise BundleError(
            f"{path} is a safetensors file but has no cvmh header, so it is not a bundle"
        )
    try:
        content = json.loads(text)
        found = content.get("format", 0)
        if found > FORMAT:
            raise BundleError(
                f"bundle {path} has format {found}, this cvmh {VERSION} reads up to {FORMAT}; "
                "update cvmh"
            )
        return validate(BundleCard, content, source=f"header of {path}")
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"bundle {path} has a damaged header ({error})") from error


def _check_names(
    path: Path, card: BundleCard, wanted: Collection[str], found: Collection[str]
) -> None:
    """Refuse a bundle that lacks weights of its network, or has others, of which one is named."""
    for said, names in (
        ("weights of it are missing", [name for name in wanted if name not in found]),
        ("weights are not of it", [name for name in found if name not in wanted]),
    ):
        if names:
            raise BundleError(
                f"bundle {path} does not fit network '{card.model}': {said} ({len(names)}, "
                f"'{names[0]}' first), so it is damaged or of another version of cvmh; copy it "
                "anew, update cvmh, or train it again"
            )


def _build(path: Path, card: BundleCard) -> nn.Module:
    try:
        return create_model(
            card.model, bands=len(card.band_names), num_classes=len(card.classes), **card.settings
        )
    except (ConfigError, TypeError) as error:
        # A TypeError: the settings hold an argument that is not a setting, such as "bands".
        raise BundleError(f"bundle {path} names a network that cannot be built: {error}") from error
