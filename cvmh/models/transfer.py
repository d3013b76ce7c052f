"""Start a network from the weights of a bundle whose bands and classes may be others."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvmh.classes import ClassTable
from cvmh.errors import BundleError, ConfigError
from cvmh.geo.bands import match_names
from cvmh.models.bundle import Bundle, load_bundle
from cvmh.models.stem_bands import fit_to_bands
from cvmh.models.zoo import create_model, find_preset
from cvmh.settings import Settings

# Settings that change how a network is trained, not what its weights mean.
OF_TRAINING = frozenset({"drop_path", "init_std"})
OF_DATA = frozenset({"bands", "num_classes"})
# The setting by which a network has parts more than the dense one, and what their names begin with.
OF_PRUNING = frozenset({"pruning"})
PRUNER = "pruner."
# The parts of a network in which features are made; some networks have only the second.
ENCODER_PARTS = ("stem", "encoder", "merge")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a network took from a bundle.

    ``copied`` counts the tensors that were taken as they are. Of bands and classes, the names that
    the bundle knew, and those that are new; a new class starts from random weights. ``new_parts``
    are of pruning, and start anew too.
    """

    bundle: str
    copied: int
    adapted: tuple[str, ...]
    random: tuple[str, ...]
    known_bands: tuple[str, ...]
    new_bands: tuple[str, ...]
    known_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    new_parts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, for the record of a run."""
        return asdict(self)

    def describe(self) -> str:
        """Return one sentence for the user."""
        parts = [f"{self.copied} tensors copied"]
        if self.adapted:
            parts.append(f"adapted: {', '.join(self.adapted)}")
        if self.new_bands:
            parts.append(f"new bands from the mean of the others: {', '.join(self.new_bands)}")
        if self.random:
            parts.append(f"left random: {', '.join(self.random)}")
        if self.new_classes:
            parts.append(f"classes that start anew: {', '.join(self.new_classes)}")
        if self.new_parts:
            parts.append(f"parts for pruning that start anew: {', '.join(self.new_parts)}")
        return f"weights from {self.bundle}: {'; '.join(parts)}"


def start_from(
    network: nn.Module,
    path: str | Path,
    *,
    name: str,
    settings: dict[str, Any],
    band_names: Sequence[str],
    classes: ClassTable,
) -> Transfer:
    """Give a new network the weights of a bundle, fitted to its bands and classes.

    Bands are matched by name. The weights of a new band are the mean of the known ones'; all are
    scaled by the ratio of band counts, so that what the stem answers keeps its size. Classes keep
    their outputs where the bundle has a class of the same name.

    Args:
        network: the network, which is changed.
        path: the bundle.
        name: the network's name in the table.
        settings: in what it differs from its preset.
        band_names: its bands, in order.
        classes: its class table.

    Raises:
        BundleError: the file is not a bundle, or is one of another network.
    """
    bundle = load_bundle(path)
    _check_same_network(network, bundle, name, settings)
    bands = match_names(band_names, bundle.card.band_names)
    old_classes = bundle.card.classes.names
    rows = [old_classes.index(n) if n in old_classes else None for n in classes.names]
    fitted, adapted, random = _fit(network, bundle, bands, rows)
    network.load_state_dict({**network.state_dict(), **fitted})
    return Transfer(
        bundle=str(path),
        copied=len(fitted) - len(adapted),
        adapted=tuple(adapted),
        random=tuple(random),
        known_bands=_chosen(band_names, bands, known=True),
        new_bands=_chosen(band_names, bands, known=False),
        known_classes=_chosen(classes.names, rows, known=True),
        new_classes=_chosen(classes.names, rows, known=False),
        new_parts=tuple(
            key for key in network.state_dict() if key.startswith(PRUNER) and key not in fitted
        ),
    )


def freeze_encoder(network: nn.Module) -> tuple[int, int]:
    """Keep a network's encoder as it is: no gradients, statistics kept, nothing dropped.

    Returns:
        How many parameters are trained, and how many there are.

    Raises:
        ConfigError: the network has no encoder apart from the rest.
    """
    if not hasattr(network, "encoder"):
        raise ConfigError(
            f"model.freeze_encoder needs a network with an encoder, {type(network).__name__} "
            "has none; leave it out"
        )
    for part in ENCODER_PARTS:
        if hasattr(network, part):
            getattr(network, part).requires_grad_(False).eval()
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, is_trained in counts if is_trained), sum(n for n, _ in counts)


def _fit(
    network: nn.Module, bundle: Bundle, bands: list[int | None], rows: list[int | None]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return the weights that fit the network, and the names of adapted and of random ones."""
    card, own = bundle.card, network.state_dict()
    by_band = _resized(card.model, card.settings, bands=1)
    by_class = _resized(card.model, card.settings, classes=1)
    same_bands = bands == list(range(len(card.band_names)))
    same_classes = rows == list(range(len(card.classes)))
    fitted, adapted, random = {}, [], []
    for key, weight in bundle.network.state_dict().items():
        if key.startswith(PRUNER) and key not in own:
            continue
        if key in by_band and not same_bands:
            weight = fit_to_bands(weight, bands)
            adapted.append(key)
        elif key in by_class and not same_classes:
            if not any(row is not None for row in rows):
                random.append(key)
                continue
            weight = _head(weight, own[key], rows)
            adapted.append(key)
        fitted[key] = weight
    return fitted, adapted, random


def _head(weight: Tensor, start: Tensor, rows: list[int | None]) -> Tensor:
    """Return the outputs (classes, ...) of known classes, and the random start of the others."""
    pairs = enumerate(rows)
    return torch.stack([start[i] if row is None else weight[row] for i, row in pairs])


def _resized(name: str, settings: dict[str, Any], *, bands: int = 0, classes: int = 0) -> set[str]:
    """Return the weights whose shapes grow with a band or a class more."""
    few = _shapes(name, settings, bands=3, classes=3)
    more = _shapes(name, settings, bands=3 + bands, classes=3 + classes)
    return {key for key, shape in few.items() if shape != more[key]}


def _shapes(
    name: str, settings: dict[str, Any], *, bands: int, classes: int
) -> dict[str, torch.Size]:
    try:
        # No memory is needed to learn shapes.
        with torch.device("meta"):
            network = create_model(name, bands=bands, num_classes=classes, **settings)
    except ConfigError:
        # Some encoders of smp look at values while they are built, mit_b0 for one.
        with torch.random.fork_rng(devices=[]):
            network = create_model(name, bands=bands, num_classes=classes, **settings)
    return {key: value.shape for key, value in network.state_dict().items()}


def _check_same_network(
    network: nn.Module, bundle: Bundle, name: str, settings: dict[str, Any]
) -> None:
    card = bundle.card
    if card.model != name:
        raise BundleError(
            f"model.init: bundle {bundle.path} is of network '{card.model}', the run trains "
            f"'{name}'; train it with --model {card.model}, or give a bundle of '{name}'"
        )
    theirs = _effective(bundle.network, name, card.settings)
    ours = _effective(network, name, settings)
    for key in sorted((theirs.keys() | ours.keys()) - OF_TRAINING - OF_DATA - OF_PRUNING):
        if theirs.get(key) != ours.get(key):
            raise BundleError(
                f"model.init: bundle {bundle.path} is of '{name}' with {key} "
                f"{theirs.get(key, 'not set')}, the run trains '{name}' with {key} "
                f"{ours.get(key, 'not set')}; "
                f"set model.settings.{key} as the bundle has it"
            )


def _effective(network: nn.Module, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a network as JSON has them; all of them where it knows its own."""
    own = getattr(network, "settings", None)
    if isinstance(own, Settings):
        return own.model_dump(mode="json")
    merged = dict(json.loads(json.dumps({**find_preset(name).settings, **settings})))
    of_encoder = merged.pop("encoder_settings", {})
    idle = OF_TRAINING | OF_PRUNING
    # Nothing set is the same as no group of settings.
    if kept := {key: value for key, value in of_encoder.items() if key not in idle}:
        merged["encoder_settings"] = kept
    return merged


def _chosen(names: Sequence[str], places: list[int | None], *, known: bool) -> tuple[str, ...]:
    return tuple(
        name for name, place in zip(names, places, strict=True) if (place is not None) == known
    )
