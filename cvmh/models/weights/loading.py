"""Published weights taken over by an encoder: complete, or not at all."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvmh.errors import WeightsError
from cvmh.geo.bands import match_names as match_bands
from cvmh.models.encoders import Encoder
from cvmh.models.weights.layout import Layout
from cvmh.models.weights.matching import RGB, Fit, Match, count_parts, fit_shapes, match_names
from cvmh.models.weights.reading import WeightsFile, read_weights
from cvmh.models.weights.report import LoadReport
from cvmh.models.weights.table import detect_variant, layout_of, variant_of

# An error names so many keys of a kind.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a file offers to a network: its tensors under the network's names, and the bands."""

    file: WeightsFile
    match: Match
    stem: str
    band_names: tuple[str, ...]
    bands: tuple[int | None, ...]

    def fit(self, own: Mapping[str, Tensor]) -> Fit:
        """Bring the tensors to the shapes of our own."""
        return fit_shapes(self.match.weights, own, stem=self.stem, bands=self.bands)

    def report(
        self, fit: Fit, *, random: Sequence[str], dropped: Sequence[str], note: str = ""
    ) -> LoadReport:
        """Return what was taken, and what was not."""
        detected = detect_variant(self.file.tensors)
        adapted = self.stem in fit.adapted
        pairs = list(zip(self.band_names, self.bands, strict=True)) if adapted else []
        return LoadReport(
            file=str(self.file.path),
            sha256=self.file.sha256,
            taken=self.file.taken,
            variant=None if detected is None else detected.variant,
            loaded=len(fit.weights),
            adapted=tuple(fit.adapted),
            random=count_parts(random),
            dropped=count_parts(dropped),
            known_bands=tuple(name for name, band in pairs if band is not None),
            new_bands=tuple(name for name, band in pairs if band is None),
            note=note,
        )


def load_weights(
    encoder: Encoder,
    path: str | Path,
    *,
    band_names: Sequence[str] | None = None,
    strict: bool = True,
) -> LoadReport:
    """Give an encoder the weights of a published file, fitted to its bands.

    Bands are matched by name with the red, green and blue that published networks know; the weights
    of another band are the mean of theirs, and all are scaled by the ratio of band counts.

    Args:
        encoder: it is changed, unless an error is raised.
        path: a .pth, .pt or .safetensors file.
        band_names: the names of the encoder's bands, in order; None: red, green and blue come
            first, and fewer than three bands are none of them.
        strict: refuse a file with a key that is not known, without one that is needed, or with one
            in another shape; else such keys stay random or are left out, and the report says so.

    Raises:
        WeightsError: the file cannot be read, is of another variant, or does not fit.
        ConfigError: no weights of such encoders have been published.
    """
    # Refused before the file is read.
    layout_of(encoder)
    return load_file(encoder, read_weights(path), band_names=band_names, strict=strict)


def load_file(
    encoder: Encoder,
    file: WeightsFile,
    *,
    band_names: Sequence[str] | None = None,
    strict: bool = True,
) -> LoadReport:
    """Give an encoder the weights of a file that was read; see :func:`load_weights`."""
    layout = layout_of(encoder)
    offer = make_offer(file, layout, encoder, bands=encoder.bands, band_names=band_names)
    own = encoder.state_dict()
    fit = offer.fit(own)
    absent = [key for key in own if key not in fit.weights and key not in fit.misfits]
    missing = [key for key in absent if not re.fullmatch(layout.absent, key)]
    foreign = [key for key in offer.match.weights if key not in own]
    complete = _complete_keys(encoder) if foreign else set()
    idle = [key for key in foreign if key in complete]
    unknown = offer.match.unknown + [key for key in foreign if key not in idle]
    problems = find_problems(unknown, missing, fit.misfits)
    if problems and (strict or not fit.weights):
        raise WeightsError(_explain(file, encoder, problems))
    encoder.load_state_dict({**own, **fit.weights})
    return offer.report(
        fit,
        random=[*absent, *fit.misfits],
        dropped=[*offer.match.dropped, *idle, *unknown],
    )


def make_offer(
    file: WeightsFile,
    layout: Layout,
    network: nn.Module,
    *,
    bands: int,
    band_names: Sequence[str] | None,
) -> Offer:
    """Return what a file offers to a network of so many bands, under the layout's names."""
    match = match_names(file.tensors, layout)
    stem = find_stem(network, bands)
    names = tuple(band_names or _default_names(bands))
    return Offer(
        file=file,
        match=match,
        stem=stem,
        band_names=names,
        bands=tuple(match_bands(names, RGB)),
    )


def find_stem(network: nn.Module, bands: int) -> str:
    """Return the name of the weight that first meets an image's bands."""
    return next(
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == bands
    )


def _explain(file: WeightsFile, encoder: Encoder, problems: Sequence[str]) -> str:
    """Return why a file is refused: it is of another variant, or what in it does not fit."""
    detected, own = detect_variant(file.tensors), variant_of(encoder)
    if detected is None or detected.variant == own:
        name = own or type(encoder).__name__
        return f"weights {file.path} do not fit encoder '{name}': {'; '.join(problems)}"
    is_ = f"'{own}'" if own else f"a {type(encoder).__name__} of settings of its own"
    instead = f", or give weights of '{own}'" if own else ""
    return (
        f"weights {file.path} are of '{detected.variant}', the encoder is {is_}; build the "
        f"encoder '{detected.variant}'{instead}"
    )


def find_problems(
    unknown: Sequence[str], missing: Sequence[str], misfits: Mapping[str, str]
) -> list[str]:
    """Return what is wrong with a file, a few keys of each kind and their count."""
    kinds = (
        ("of another shape or type", list(misfits.values())),
        ("missing", missing),
        ("unknown", unknown),
    )
    return [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in kinds if keys]


def _some(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def _complete_keys(encoder: Encoder) -> set[str]:
    """Return what an encoder would hold that returns all its maps."""
    settings: Any = getattr(encoder, "settings", None)
    make: Any = type(encoder)
    with torch.device("meta"):
        complete = make(type(settings)(**settings.model_dump(exclude={"out_indices"})))
    return set(complete.state_dict())


def _default_names(bands: int) -> tuple[str, ...]:
    known = RGB if bands >= len(RGB) else ()
    return known + tuple(f"band {index + 1}" for index in range(len(known), bands))
