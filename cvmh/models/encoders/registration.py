"""Our encoders under segmentation-models-pytorch, by the names ``cvmh-NAME``.

Importing this loads smp, and with it timm and torchvision: two seconds and 200 MB that whoever does
not use it is spared. B batch, C channels, H W map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from cvmh.errors import ConfigError
from cvmh.models.encoders.encoder import Encoder
from cvmh.models.encoders.table import ENCODERS, create_encoder
from cvmh.models.stem_bands import fit_to_bands

PREFIX = "cvmh-"
# smp counts the halvings of an image: its own, none, and the four of ours.
DEPTHS = (3, 4, 5)
# Bands that an encoder starts with under smp, which tells it of others later.
BANDS = 3


def register_encoders() -> None:
    """Let smp know all encoders: ``smp.create_model("unet", encoder_name="cvmh-vssd_tiny")``.

    Their weights are random, so ``encoder_weights`` must be None. May be called many times.
    """
    for name in ENCODERS:
        smp_encoders[PREFIX + name] = {
            "encoder": SmpEncoder,
            "pretrained_settings": {},
            "params": {"name": name},
        }


class SmpEncoder(nn.Module, EncoderMixin):
    """One of our encoders as smp wants them: the image and a map without channels come first.

    Args:
        name: of the table of encoders.
        depth: how often maps are halved, 3 to 5; there is no map at half of the resolution.
        output_stride: of the coarsest map; smp calls :meth:`make_dilated` for 8 and 16.
        bands: of the images.
        settings: of the encoder, where they differ from its variant's.
    """

    _is_torch_scriptable = False

    def __init__(
        self,
        name: str,
        depth: int = 5,
        output_stride: int = 32,
        *,
        bands: int = BANDS,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ConfigError(
                f"encoder_depth must be one of {DEPTHS} for '{PREFIX}{name}', got {depth}"
            )
        for key in ("bands", "out_indices"):
            if key in (settings or {}):
                raise ConfigError(
                    f"{key} of encoder '{name}' follows from the network, leave it out; "
                    "encoder_depth says how many maps there are"
                )
        self.name, self.settings = name, dict(settings or {})
        self._depth, self._in_channels, self._output_stride = depth, bands, output_stride
        self.model = self._create(bands)
        self._out_channels = [bands, 0, *self.model.widths]

    def _create(self, bands: int) -> Encoder:
        indices = tuple(range(self._depth - 1))
        return create_encoder(self.name, bands=bands, out_indices=indices, **self.settings)

    def with_settings(self, settings: Mapping[str, Any]) -> "SmpEncoder":
        """Return another one whose encoder has other settings, with random weights.

        Raises:
            ConfigError: a setting is unknown, or its maps would be of other channels.
        """
        bands, stride = self._in_channels, self._output_stride
        other = SmpEncoder(self.name, self._depth, stride, bands=bands, settings=settings)
        if other.out_channels != self.out_channels:
            raise ConfigError(
                f"encoder '{self.name}' must keep the channels {self.out_channels[2:]} that its "
                f"decoder reads, got settings for {other.out_channels[2:]}"
            )
        if stride < other.model.strides[-1]:
            other.make_dilated(stride)
        return other

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Take images of so many bands from now on.

        Args:
            in_channels: number of bands.
            pretrained: whether the weights stay, those of the stem fitted to the bands: three and
                more bands begin with the known ones, fewer are none of them.
        """
        if in_channels == self._in_channels:
            return
        before, self.model = self.model, self._create(in_channels)
        if pretrained:
            kept = self._in_channels if in_channels >= self._in_channels else 0
            bands = [*range(kept), *[None] * (in_channels - kept)]
            _take_weights(self.model, before, bands)
        self._in_channels = self._out_channels[0] = in_channels

    def get_stages(self) -> dict[int, Sequence[nn.Module]]:
        """Return the modules at each stride that can be dilated in place of striding.

        Raises:
            ConfigError: the encoder does not stride by convolutions.
        """
        strides = self.model.strides
        stages = self.model.stages_by_stride()
        found = {stride: stages.get(stride, ()) for stride in strides if stride > strides[0]}
        if not all(any(map(_is_strided, _convolutions(parts))) for parts in found.values()):
            raise ConfigError(
                f"encoder_output_stride must be 32 for '{PREFIX}{self.name}', which does not "
                "stride by convolutions; leave it out, or take an architecture that needs no other"
            )
        return found

    def make_dilated(self, output_stride: int) -> None:
        """Keep maps at this stride: later convolutions see as far by dilation.

        smp dilates the convolution that strode like those behind it. But its input is not dilated
        yet; spread as far as that, it would see other pixels than those it was trained on.

        Args:
            output_stride: 8 or 16.
        """
        if output_stride not in (8, 16):
            raise ConfigError(f"encoder_output_stride must be 8, 16 or 32, got {output_stride}")
        for stride, parts in self.get_stages().items():
            if stride > output_stride:
                for conv in _convolutions(parts):
                    _dilate(conv, stride // output_stride)
        self._output_stride = output_stride

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the image, a map (B, 0, H / 2, W / 2), and the encoder's maps."""
        batch, _, height, width = image_BCHW.shape
        nothing = image_BCHW.new_empty(batch, 0, height // 2, width // 2)
        return [image_BCHW, nothing, *self.model(image_BCHW)]


def _take_weights(network: Encoder, source: Encoder, bands: Sequence[int | None]) -> None:
    own = network.state_dict()
    for key, weight in source.state_dict().items():
        own[key] = weight if weight.shape == own[key].shape else fit_to_bands(weight, bands)
    network.load_state_dict(own)


def _convolutions(parts: Sequence[nn.Module]) -> list[nn.Conv2d]:
    return [module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d)]


def _is_strided(conv: nn.Conv2d) -> bool:
    return conv.stride[0] > 1


def _dilate(conv: nn.Conv2d, rate: int) -> None:
    if _is_strided(conv):
        rate, conv.stride = rate // 2, (1, 1)
    conv.dilation = (rate, rate)
    conv.padding = (rate * (conv.kernel_size[0] // 2), rate * (conv.kernel_size[1] // 2))
