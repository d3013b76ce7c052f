"""The networks that cvmh can build: a plain table of presets, and the function that builds one."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cvmh.errors import ConfigError
from cvmh.models.cvmh_unet import CVMHUNet, CVMHUNetSettings
from cvmh.models.encoders.table import ENCODERS
from cvmh.settings import validate


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A row of the table: what a name builds and where it comes from."""

    build: Callable[..., nn.Module]
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str
    published: str = ""
    # Narrow networks bear, and need, larger steps.
    learning_rate: float = 1e-3
    # Whether it can choose the cells that it computes, of a setting "pruning".
    prunes: bool = False


def _cvmh_unet(name: str, settings: Mapping[str, Any]) -> nn.Module:
    return CVMHUNet(validate(CVMHUNetSettings, settings, source=f"network '{name}'"))


def _smp(name: str, settings: Mapping[str, Any]) -> nn.Module:
    # It brings timm and torchvision: 200 MB and two seconds that our own networks do not need.
    from cvmh.models.smp_network import create_smp_network

    if name.startswith(SMP):
        _refuse_other_parts(name, settings)
    own = {key: settings[key] for key in ("arch", "encoder_name", "bands", "num_classes")}
    rest = {key: value for key, value in settings.items() if key not in own}
    return create_smp_network(name, settings=rest, **own)


def _refuse_other_parts(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings by which a bundle's network would be another than its name says."""
    for key, part in find_preset(name).settings.items():
        if settings[key] != part:
            raise ConfigError(
                f"network '{name}': {key} is '{part}' by its name, got '{settings[key]}'; leave "
                f"it out, or train smp:{settings['arch']}:{settings['encoder_name']}"
            )


# What names of smp's networks begin with.
SMP = "smp:"
_PAPER = "Cao et al. 2024, arXiv 2410.05624"

PRESETS: Mapping[str, Preset] = {
    "cvmh_unet": Preset(
        build=_cvmh_unet,
        prunes=True,
        source=_PAPER,
        published="30.84 M (without the raw SSM tensors), 5.71 GFLOPs; "
        "mIoU Vaihingen 75.97, Potsdam 80.99",
    ),
    "cvmh_unet_small": Preset(
        build=_cvmh_unet,
        prunes=True,
        settings={
            "stem_widths": (16, 32),
            "widths": (48, 96, 192, 384),
            "d_state": 1,
            "expand": 1.0,
            "drop_path": 0.1,
            "init_std": None,
        },
        learning_rate=3e-3,
        source=f"{_PAPER}; half the width, d_state 1, convolutional stem",
    ),
    "cvmh_unet_nano": Preset(
        build=_cvmh_unet,
        prunes=True,
        settings={
            "stem_widths": (16, 32),
            "widths": (32, 64, 96, 128),
            "encoder_depths": (1, 1, 2, 2),
            "decoder_depths": (2, 1, 1, 1),
            "d_state": 1,
            "expand": 0.5,
            "num_frequencies": 4,
            "drop_path": 0.0,
            "init_std": None,
        },
        learning_rate=4e-3,
        source=f"{_PAPER}; for CPUs and the demo, convolutional stem",
    ),
    "unet_resnet18": Preset(
        build=_smp,
        settings={"arch": "unet", "encoder_name": "resnet18"},
        source="segmentation-models-pytorch, no pretrained weights; a baseline",
    ),
}


def find_preset(name: str) -> Preset:
    """Return the row of the table that a name stands for.

    Args:
        name: a name of the table, or ``smp:ARCH:ENCODER``: any architecture of
            segmentation-models-pytorch with any encoder, theirs (``resnet34``), timm's
            (``tu-convnext_tiny``) or ours (``cvmh-vssd_tiny``).

    Raises:
        ConfigError: the name is unknown; the message names the nearest right one. Whether smp
            knows the architecture and the encoder is looked at when the network is built.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.startswith(SMP):
        arch, _, encoder_name = name.removeprefix(SMP).partition(":")
        if not arch or not encoder_name:
            raise ConfigError(
                f"network '{name}' must be written smp:ARCH:ENCODER, for example "
                "smp:upernet:cvmh-vssd_tiny"
            )
        return Preset(
            build=_smp,
            settings={"arch": arch, "encoder_name": encoder_name},
            source="segmentation-models-pytorch",
        )
    encoder = name.removeprefix("cvmh-")
    if encoder in ENCODERS:
        raise ConfigError(
            f"'{name}' is an encoder, which needs a decoder to be a network; give it one, for "
            f"example smp:upernet:cvmh-{encoder}"
        )
    close = difflib.get_close_matches(name.strip().lower(), PRESETS, n=1)
    known = ", ".join((*PRESETS, "smp:ARCH:ENCODER"))
    hint = f"did you mean '{close[0]}'?" if close else f"known: {known}"
    raise ConfigError(f"there is no network '{name}'; {hint}")


def create_model(name: str, *, bands: int = 3, num_classes: int = 6, **settings: Any) -> nn.Module:
    """Build a network by name, with random weights.

    Args:
        name: a name of the table (``cvmh models`` prints it), or ``smp:ARCH:ENCODER``.
        bands: number of input bands.
        num_classes: number of output channels.
        settings: settings that differ from the preset's.

    Returns:
        A module that maps (B, bands, H, W) float to logits (B, num_classes, H, W).

    Raises:
        ConfigError: the name or a setting is unknown; the message names the nearest right one.
    """
    preset = find_preset(name)
    return preset.build(
        name, {**preset.settings, **settings, "bands": bands, "num_classes": num_classes}
    )
