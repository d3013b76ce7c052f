"""CVMH-UNet started from published weights of VMamba v0, whose scan blocks are parts of its own.

The stem, the scan part of each block of the encoder, and the merging of patches are those of VMamba
v0; all else stays random. VMamba's four paths are rows, columns, and both reversed. With
``scan="cs2d"`` the weights of the reversed ones start the two diagonals.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from cvmh.errors import WeightsError
from cvmh.models.cvmh_unet import CVMHUNet
from cvmh.models.weights.layout import Renames, Weights
from cvmh.models.weights.loading import Offer, find_problems, make_offer
from cvmh.models.weights.matching import Match
from cvmh.models.weights.reading import WeightsFile
from cvmh.models.weights.report import LoadReport
from cvmh.models.weights.table import detect_variant
from cvmh.models.weights.vmamba import VMAMBA_V0_LAYOUT

# Encoders whose files have blocks like ours.
VARIANTS = ("vmamba_tiny_v0", "vmamba_small_v0", "vmamba_base_v0")
DIAGONALS = "rows and columns as they are, diagonals from the reversed paths"


def seed_cvmh_unet(
    network: CVMHUNet, file: WeightsFile, *, band_names: Sequence[str] | None = None
) -> LoadReport:
    """Give a CVMH-UNet what a published file of VMamba v0 has of it.

    Blocks that only one of the two has are left as they are.

    Args:
        network: it is changed, unless an error is raised.
        file: of VMamba v0.
        band_names: as of :func:`~cvmh.models.weights.loading.load_weights`.

    Raises:
        WeightsError: the file is of another encoder, or does not fit.
    """
    offer = _placed(
        make_offer(
            file, VMAMBA_V0_LAYOUT, network, bands=network.settings.bands, band_names=band_names
        ),
        network,
    )
    own = network.state_dict()
    fit = offer.fit(own)
    missing = _missing(own, offer.match.weights)
    problems = find_problems(offer.match.unknown, missing, fit.misfits)
    if problems or not fit.weights:
        raise WeightsError(_explain(file, network, problems))
    network.load_state_dict({**own, **fit.weights})
    return offer.report(
        fit,
        random=[key for key in own if key not in fit.weights],
        dropped=offer.match.dropped,
        note=DIAGONALS if network.settings.scan == "cs2d" else "",
    )


def _placed(offer: Offer, network: CVMHUNet) -> Offer:
    """Return an offer of VMamba's tensors under the names of CVMH-UNet."""
    own, places = network.state_dict().keys(), _places(network)
    weights, dropped = {}, list(offer.match.dropped)
    for key, tensor in offer.match.weights.items():
        name = _rename(key, places)
        if name in own:
            weights[name] = tensor
        else:
            dropped.append(key)
    return replace(offer, match=Match(weights, dropped, offer.match.unknown))


def _places(network: CVMHUNet) -> Renames:
    scan = "scan." if network.settings.block == "cvss" else ""
    places = (
        (r"stages\.(\d+)\.(\d+)\.((?:norm|mixer)\..+)", rf"encoder.\1.blocks.\2.{scan}\3"),
        (r"steps\.(.+)", r"merge.\1"),
    )
    if network.settings.stem_widths is not None:
        # A convolutional stem has nothing of it.
        return places
    return (*places, (r"stem\.conv\.(\w+)", r"stem.project.\1"), (r"(stem\.norm\.\w+)", r"\1"))


def _rename(key: str, places: Renames) -> str | None:
    for pattern, replacement in places:
        if match := re.fullmatch(pattern, key):
            return match.expand(replacement)
    return None


def _missing(own: Weights, weights: Weights) -> list[str]:
    """Return what a layer of the network lacks that the file has other tensors of."""
    begun = {_layer(key) for key in weights}
    return [key for key in own if _layer(key) in begun and key not in weights]


def _layer(key: str) -> str:
    """Return the scan part of a block, a merging, or the stem that a key is of."""
    match = re.match(r"encoder\.\d+\.blocks\.\d+\.(scan\.)?|merge\.\d+\.|stem\.", key)
    return match[0] if match else ""


def _explain(file: WeightsFile, network: CVMHUNet, problems: Sequence[str]) -> str:
    detected = detect_variant(file.tensors)
    if detected is not None and detected.variant not in VARIANTS:
        return (
            f"weights {file.path} are of '{detected.variant}', a CVMH-UNet starts from those of "
            f"{', '.join(VARIANTS)}"
        )
    settings = network.settings
    return (
        f"weights {file.path} do not fit a CVMH-UNet of widths {settings.widths}, d_state "
        f"{settings.d_state} and expand {settings.expand:g}: {'; '.join(problems) or 'no block'}; "
        "those of vmamba_tiny_v0 and vmamba_small_v0 fit 'cvmh_unet'"
    )
