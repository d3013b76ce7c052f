"""What a table of encoders is made of: families, their variants, and what is published of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from cvmh.models.encoders.classifier import Classifier
from cvmh.models.encoders.encoder import Encoder
from cvmh.settings import Settings

Four = tuple[int, int, int, int]


class Published(NamedTuple):
    """Published figures: of ImageNet-1k at 224 x 224, and of ADE20K with UperNet at 512 x 512.

    ``parameters`` counts the classifier too; it is the count of the released code where that could
    be run, and ``is_exact`` says so. FLOPs count a multiply-add as one; scores are per cent.
    """

    parameters: int
    gflops: float | None = None
    top1: float | None = None
    ade20k_miou: float | None = None
    is_exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of a family: how its settings differ from the family's, and its figures."""

    settings: Mapping[str, Any]
    published: Published


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one paper: ``encoder(settings(...))`` makes an encoder of it.

    ``classifier(encoder, num_classes)`` makes what the published weights were trained as.
    """

    name: str
    source: str
    licence: str
    settings: type[Settings]
    encoder: Callable[[Any], Encoder]
    classifier: Callable[..., nn.Module] = Classifier
    variants: Mapping[str, Variant]


def initialise(module: nn.Module) -> None:
    """Draw the weights of Linear layers from a truncated normal of 0.02, as all families do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
