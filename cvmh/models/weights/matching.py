"""Published tensors brought to our names and shapes."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from cvmh.models.stem_bands import fit_to_bands
from cvmh.models.weights.layout import Layout, Weights

# What the published networks were trained on.
RGB = ("red", "green", "blue")
# What training programs put before every key: DataParallel, averaged models, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
# Averages that some programs keep beside the weights, under names of their own.
AVERAGE = re.compile(r"(.*\.)?ema_.*")


class Match(NamedTuple):
    """Published tensors under our names, and the published names of those that have none."""

    weights: dict[str, Tensor]
    dropped: list[str]
    unknown: list[str]


class Fit(NamedTuple):
    """Tensors in our shapes, the names of those fitted to other bands, and what does not fit."""

    weights: dict[str, Tensor]
    adapted: list[str]
    misfits: dict[str, str]


def strip_prefix(tensors: Weights, prefixes: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of the backbone without prefix, and the names of all others."""
    inside = dict(tensors)
    while wrapper := next((w for w in WRAPPERS if all(key.startswith(w) for key in inside)), None):
        if not inside:
            break
        inside = {key.removeprefix(wrapper): value for key, value in inside.items()}
    for prefix in prefixes:
        under = {k.removeprefix(prefix): v for k, v in inside.items() if k.startswith(prefix)}
        if under:
            return under, [key for key in inside if not key.startswith(prefix)]
    return inside, []


def match_names(tensors: Weights, layout: Layout) -> Match:
    """Give published tensors our names; keys that a layout drops, and averages, are left out."""
    kept = {key: value for key, value in tensors.items() if not AVERAGE.fullmatch(key)}
    inside, dropped = strip_prefix(kept, layout.prefixes)
    weights, unknown = {}, []
    for key, tensor in inside.items():
        name = layout.rename(key)
        if name is not None:
            weights[name] = layout.reshape(name, tensor)
        elif re.fullmatch(layout.dropped, key):
            dropped.append(key)
        else:
            unknown.append(key)
    averages = [key for key in tensors if AVERAGE.fullmatch(key)]
    return Match(weights, dropped + averages, unknown)


def fit_shapes(
    weights: Weights,
    own: Weights,
    *,
    stem: str,
    bands: Sequence[int | None],
) -> Fit:
    """Bring tensors to the shapes of our own.

    Args:
        weights: tensors under our names; those that we do not have are left out.
        own: what a network has.
        stem: the name of its first convolution's weight.
        bands: which band of the stem's each of the network's is; None: one that it does not know.
    """
    fitted: dict[str, Tensor] = {}
    adapted, misfits = [], {}
    for key, tensor in weights.items():
        if key not in own:
            continue
        wanted = own[key].shape
        if own[key].is_floating_point() and not tensor.is_floating_point():
            # Copied all the same, integers would be rounded weights, most of them 0.
            misfits[key] = f"{key} is of {tensor.dtype}, not of {own[key].dtype}"
            continue
        if key == stem and _knows_rgb(tensor) and list(bands) != list(range(len(RGB))):
            tensor = fit_to_bands(tensor.float(), bands)
            adapted.append(key)
        if tensor.shape == wanted:
            fitted[key] = tensor
        elif _as_pointwise(tensor.shape) == _as_pointwise(wanted):
            fitted[key] = tensor.reshape(wanted)
        else:
            misfits[key] = f"{key} is {tuple(tensor.shape)}, not {tuple(wanted)}"
    return Fit(fitted, adapted, misfits)


def _knows_rgb(stem: Tensor) -> bool:
    return stem.ndim > 1 and stem.shape[1] == len(RGB)


def _as_pointwise(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a Linear layer for that of a 1x1 convolution, else the shape."""
    return tuple(shape[:2]) if len(shape) == 4 and tuple(shape[2:]) == (1, 1) else tuple(shape)


def count_parts(keys: Sequence[str]) -> Mapping[str, int]:
    """Return how many of some keys are in each part of a network, by the first word."""
    counts: dict[str, int] = {}
    for key in keys:
        part = key.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return counts
