"""Networks of segmentation-models-pytorch, any architecture with any encoder, ours among them.

Importing this loads smp, timm and torchvision. B batch, H W size of an image.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, nn

from cvmh.errors import ConfigError
from cvmh.models.encoders.registration import PREFIX, SmpEncoder, register_encoders
from cvmh.models.layers import check_image, pad_below

ARCHITECTURES: Mapping[str, Any] = smp.MODEL_ARCHITECTURES_MAPPING
# What a network here decides itself: it gives logits of all classes, from random weights.
DECIDED = {
    "self",
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "kwargs",
}
TIMM = "tu-"
# PAN halves its coarsest map three times.
PAN_HALVINGS = 8


class SmpNetwork(nn.Module):
    """Segment images (B, bands, H, W) into logits (B, num_classes, H, W), for any H and W >= 1.

    Args:
        network: whose encoder, decoder and head it is made of; weights keep their names.
        bands: of the images.
        smallest: height and width that the architecture needs at least, in pixels.
    """

    def __init__(self, network: Any, *, bands: int, smallest: int = 1) -> None:
        super().__init__()
        self.bands = bands
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.segmentation_head: nn.Module = network.segmentation_head
        self.stride, self.smallest = int(network.encoder.output_stride), smallest

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes, H, W) of an image (B, bands, H, W).

        Sizes that are no multiple of :attr:`stride` are padded at the bottom and right by
        repeating the border, and the logits cropped.

        Raises:
            ShapeError: it is not (B, bands, H, W).
        """
        check_image(image_BCHW, self.bands)
        height, width = image_BCHW.shape[-2:]
        features = self.encoder(pad_below(image_BCHW, self.stride, smallest=self.smallest))
        # Of a vision transformer there are prefix tokens beside the maps.
        parts = features if isinstance(features, tuple) else (features,)
        return self.segmentation_head(self.decoder(*parts))[..., :height, :width]


def create_smp_network(
    name: str,
    *,
    arch: str,
    encoder_name: str,
    bands: int,
    num_classes: int,
    settings: Mapping[str, Any],
) -> SmpNetwork:
    """Build a network of smp with random weights.

    Args:
        name: of the network, for messages.
        arch: of smp's architectures, such as ``upernet``.
        encoder_name: of smp's encoders, such as ``resnet34``, ``tu-NAME`` for timm's, or
            ``cvmh-NAME`` for ours.
        bands: number of input bands.
        num_classes: number of output channels.
        settings: arguments of the architecture, and ``encoder_settings``, those of the encoder.

    Raises:
        ConfigError: a name or a setting is unknown, or the parts do not go together.
    """
    register_encoders()
    _check_names(name, arch, encoder_name)
    arguments = dict(settings)
    of_encoder = arguments.pop("encoder_settings", {})
    _check_settings(name, arch, arguments)
    for_timm = _timm_arguments(arch, of_encoder) if encoder_name.startswith(TIMM) else {}
    try:
        network = ARCHITECTURES[arch](
            encoder_name=encoder_name,
            encoder_weights=None,
            in_channels=bands,
            classes=num_classes,
            **arguments,
            **for_timm,
        )
        if of_encoder and not for_timm:
            network.encoder = _changed(network.encoder, of_encoder)
    except ConfigError as error:
        raise ConfigError(f"network '{name}': {error}") from error
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"network '{name}' cannot be built with {dict(settings)}: {error}"
        ) from error
    smallest = PAN_HALVINGS * network.encoder.output_stride if arch == "pan" else 1
    return SmpNetwork(network, bands=bands, smallest=smallest)


def _timm_arguments(arch: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    # Transformers are made for one size of images unless they are told of others.
    return {"dynamic_img_size": True, **settings} if arch == "dpt" else dict(settings)


def _changed(encoder: nn.Module, settings: Mapping[str, Any]) -> SmpEncoder:
    if not isinstance(encoder, SmpEncoder):
        raise ConfigError(
            f"encoder_settings are for encoders of cvmh ({PREFIX}NAME) and of timm ({TIMM}NAME); "
            "leave them out"
        )
    return encoder.with_settings(settings)


def _check_names(name: str, arch: str, encoder_name: str) -> None:
    if arch not in ARCHITECTURES:
        raise ConfigError(
            f"network '{name}': segmentation-models-pytorch has no architecture '{arch}'; "
            f"did you mean '{_nearest(arch, ARCHITECTURES)}'?"
        )
    # A tag of pretrained weights may follow a name of timm's.
    wanted = encoder_name.partition(".")[0] if encoder_name.startswith(TIMM) else encoder_name
    known = [*smp_encoders, *(TIMM + model for model in timm.list_models())]
    if wanted not in known:
        raise ConfigError(
            f"network '{name}': there is no encoder '{encoder_name}'; "
            f"did you mean '{_nearest(encoder_name, known)}'?"
        )
    if arch == "dpt" and not encoder_name.startswith(TIMM):
        raise ConfigError(
            f"network '{name}': architecture 'dpt' needs a vision transformer of timm "
            f"({TIMM}vit_...), got '{encoder_name}'; take another architecture, such as upernet"
        )


def _check_settings(name: str, arch: str, settings: Mapping[str, Any]) -> None:
    known = set(inspect.signature(ARCHITECTURES[arch]).parameters) - DECIDED
    known.add("encoder_settings")
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"network '{name}': unknown key '{key}'; did you mean '{_nearest(key, known)}'?"
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name.strip().lower(), sorted(known), n=1, cutoff=0)[0]
