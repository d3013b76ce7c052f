"""The network that a run starts with: its weights, and which of them are trained."""

from typing import Any, NamedTuple

from torch import nn

from cvmh.config import RunConfig
from cvmh.datasets import SegmentationData, TrainingData
from cvmh.models.transfer import freeze_encoder, start_from
from cvmh.models.weights.starting import start_from_published
from cvmh.models.zoo import create_model
from cvmh.progress import Progress, silent
from cvmh.train.pruning import describe


class Start(NamedTuple):
    """A network, what the record of the run says of how it was made, and lines for the user."""

    network: nn.Module
    facts: dict[str, Any]
    told: list[str]


def make_network(
    config: RunConfig,
    data: SegmentationData,
    training: TrainingData,
    *,
    is_resumed: bool,
    offline: bool = False,
    progress: Progress = silent,
) -> Start:
    """Build a network with random weights, or with the bundle's or published ones that are named.

    Args:
        config: ``model`` names the network, the weights, and whether the encoder is trained.
        data: its classes are those of the network.
        training: its bands are those of the network.
        is_resumed: the run goes on from a checkpoint, so no other weights are read again.
        offline: published weights are never fetched.
        progress: receives what is fetched.

    Raises:
        BundleError: the bundle cannot be read, or is one of another network.
        WeightsError: published weights cannot be found, fetched or read, or do not fit.
        ConfigError: the network cannot be built, or has no encoder to freeze or to give weights.
    """
    settings, bands = config.model, training.summary.band_names
    network = create_model(
        settings.name, bands=len(bands), num_classes=len(data.classes), **config.network_settings
    )
    facts: dict[str, Any] = {}
    told = [] if config.pruning is None else [describe(config.pruning)]
    if settings.init is not None and not is_resumed:
        transfer = start_from(
            network,
            settings.init,
            name=settings.name,
            settings=config.network_settings,
            band_names=bands,
            classes=data.classes,
        )
        told.append(transfer.describe())
        facts["init"] = transfer.to_json()
    if settings.pretrained is not None and not is_resumed:
        report = start_from_published(
            network, settings.pretrained, band_names=bands, offline=offline, progress=progress
        )
        told.append(report.describe())
        facts["pretrained"] = report.to_json()
    if settings.freeze_encoder:
        trained, all_ = freeze_encoder(network)
        told.append(f"encoder frozen: {trained} of {all_} parameters are trained")
        if not is_resumed and settings.init is None and settings.pretrained is None:
            told.append(
                "its weights are random; give it some with --init or model.pretrained, or leave "
                "model.freeze_encoder out"
            )
        facts["trained_parameters"] = trained
    return Start(network, facts, told)
