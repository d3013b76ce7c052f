"""A network of any kind started from published weights: where they go in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from cvmh.errors import ConfigError
from cvmh.models.cvmh_unet import CVMHUNet
from cvmh.models.encoders import Encoder
from cvmh.models.weights.finding import find_weights
from cvmh.models.weights.loading import load_file
from cvmh.models.weights.reading import WeightsFile, read_weights
from cvmh.models.weights.report import LoadReport
from cvmh.models.weights.seeding import VARIANTS, seed_cvmh_unet
from cvmh.models.weights.table import layout_of, variant_of
from cvmh.progress import Progress, silent


class _Place(NamedTuple):
    """Which variants a network takes weights of, none where any may fit, and how it takes them."""

    variants: tuple[str, ...]
    load: Callable[[WeightsFile], LoadReport]


def start_from_published(
    network: nn.Module,
    file_or_name: str,
    *,
    band_names: Sequence[str],
    offline: bool = False,
    progress: Progress = silent,
) -> LoadReport:
    """Give a network's encoder published weights; the rest of it stays as it is.

    Args:
        network: has an encoder of ours, or is a CVMH-UNet.
        file_or_name: as of :func:`~cvmh.models.weights.finding.find_weights`.
        band_names: of the network, in order.
        offline: never fetch.
        progress: receives what is fetched.

    Raises:
        ConfigError: there are no published weights for such a network.
        WeightsError: they cannot be found, fetched or read, or do not fit.
    """
    place = _place(network, band_names)
    found = find_weights(file_or_name, variants=place.variants, offline=offline, progress=progress)
    report = place.load(read_weights(found.path))
    if found.published is None:
        return report
    return replace(report, address=found.published.address, licence=found.published.licence)


def _place(network: nn.Module, band_names: Sequence[str]) -> _Place:
    if isinstance(network, CVMHUNet):
        unet = network
        return _Place(VARIANTS, lambda file: seed_cvmh_unet(unet, file, band_names=band_names))
    encoder = next((module for module in network.modules() if isinstance(module, Encoder)), None)
    if encoder is None:
        raise ConfigError(
            f"model.pretrained needs a network with an encoder of cvmh, {type(network).__name__} "
            "has none; train smp:ARCH:cvmh-NAME or cvmh_unet, or start from a bundle with "
            "model.init"
        )
    layout_of(encoder)
    variant = variant_of(encoder)
    return _Place(
        () if variant is None else (variant,),
        lambda file: load_file(encoder, file, band_names=band_names),
    )
