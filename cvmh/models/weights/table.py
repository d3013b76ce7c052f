"""Which layout the published files of an encoder have, and of which encoder a file is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cvmh.errors import ConfigError
from cvmh.models.encoders import FAMILIES, Encoder
from cvmh.models.encoders.groupmamba import GroupMambaSettings
from cvmh.models.encoders.plainmamba import PlainMambaSettings
from cvmh.models.encoders.vmamba import VMambaSettings
from cvmh.models.encoders.vssd import VSSDSettings
from cvmh.models.weights.groupmamba import GROUPMAMBA_LAYOUT
from cvmh.models.weights.layout import Layout, Weights
from cvmh.models.weights.matching import strip_prefix
from cvmh.models.weights.plainmamba import PLAINMAMBA_LAYOUT
from cvmh.models.weights.vmamba import VMAMBA_V0_LAYOUT, VMAMBA_V2_LAYOUT
from cvmh.models.weights.vssd import VSSD_LAYOUT
from cvmh.settings import Settings

LAYOUTS: tuple[Layout, ...] = (
    VMAMBA_V0_LAYOUT,
    VMAMBA_V2_LAYOUT,
    VSSD_LAYOUT,
    GROUPMAMBA_LAYOUT,
    PLAINMAMBA_LAYOUT,
)
# How the layout follows from the settings of an encoder.
CHOICES: Mapping[type[Settings], Callable[[Any], Layout]] = {
    VMambaSettings: lambda settings: (
        VMAMBA_V0_LAYOUT if settings.generation == "v0" else VMAMBA_V2_LAYOUT
    ),
    VSSDSettings: lambda settings: VSSD_LAYOUT,
    GroupMambaSettings: lambda settings: GROUPMAMBA_LAYOUT,
    PlainMambaSettings: lambda settings: PLAINMAMBA_LAYOUT,
}
# Settings that do not change what weights mean.
IDLE = {"bands", "out_indices", "drop_path", "pyramid"}


class Detected(NamedTuple):
    """The variant that tensors are of, and the layout of its files."""

    variant: str
    layout: Layout


def layout_of(encoder: Encoder) -> Layout:
    """Return the layout that published files of an encoder have.

    Raises:
        ConfigError: no weights of such encoders have been published.
    """
    settings: Any = getattr(encoder, "settings", None)
    choose = CHOICES.get(type(settings))
    if choose is None:
        raise ConfigError(
            f"no weights of {type(encoder).__name__} have been published; train it from random "
            "weights, or from a bundle with model.init"
        )
    return choose(settings)


def variant_of(encoder: Encoder) -> str | None:
    """Return the name of an encoder, None where its settings are those of no variant."""
    settings: Any = getattr(encoder, "settings", None)
    for family in FAMILIES:
        if type(settings) is not family.settings:
            continue
        for name, variant in family.variants.items():
            wanted = family.settings.model_validate(variant.settings)
            if settings.model_dump(exclude=IDLE) == wanted.model_dump(exclude=IDLE):
                return name
    return None


def detect_variant(weights: Weights) -> Detected | None:
    """Return of which variant of any family published tensors are, None where of none."""
    for layout in LAYOUTS:
        inside, _ = strip_prefix(weights, layout.prefixes)
        variant = layout.detect(inside)
        if variant is not None:
            return Detected(variant, layout)
    return None
