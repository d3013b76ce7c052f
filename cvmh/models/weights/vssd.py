"""How the published files of VSSD name what our encoders hold."""

import re

from torch import Tensor

from cvmh.models.encoders.vssd import VSSDS, VSSDSettings
from cvmh.models.weights.layout import Layout, Weights

BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
STEP = r"layers\.(\d+)\.downsample\.conv\."
# Weights of Linear layers, which some files hold as 1x1 convolutions.
LINEAR = re.compile(r".*\.(in_proj|out_proj|widen|narrow)\.weight")


def _reshape(key: str, tensor: Tensor) -> Tensor:
    is_linear = LINEAR.fullmatch(key) and key.startswith("stages.")
    return tensor.flatten(1) if is_linear else tensor


def _detect(weights: Weights) -> str | None:
    """Compare width, depths, heads and states with those of each variant."""
    found = {
        "width": _size(weights, "patch_embed.conv3.1.conv.weight"),
        "depths": tuple(len(_blocks(weights, stage)) for stage in range(4)),
        "heads": _size(weights, "layers.0.blocks.0.attn.dt_bias"),
        "inner": _size(weights, "layers.0.blocks.0.attn.norm.weight"),
        "mixed": _size(weights, "layers.0.blocks.0.attn.conv2d.weight"),
        "last": _size(weights, "layers.3.blocks.0.attn.to_qkv.weight"),
    }
    for name, variant in VSSDS.variants.items():
        settings = VSSDSettings.model_validate(variant.settings)
        inner = int(settings.expand * settings.width)
        wanted = {
            "width": settings.width,
            "depths": settings.depths,
            "heads": settings.heads[0],
            "inner": inner,
            "mixed": inner + 2 * settings.d_state,
            "last": 3 * 8 * settings.width,
        }
        if found == wanted:
            return name
    return None


def _size(weights: Weights, key: str) -> int:
    return len(weights[key]) if key in weights else 0


def _blocks(weights: Weights, stage: int) -> set[str]:
    pattern = re.compile(rf"layers\.{stage}\.blocks\.(\d+)\..*")
    return {match[1] for key in weights if (match := pattern.fullmatch(key))}


VSSD_LAYOUT = Layout(
    prefixes=("backbone.",),
    renames=(
        (r"patch_embed\.conv1\.(.*)", r"stem.first.\1"),
        (r"patch_embed\.conv2\.(.*)", r"stem.between.\1"),
        (r"patch_embed\.conv3\.(.*)", r"stem.second.\1"),
        (BLOCK + r"cpe1\.(.*)", r"stages.\1.\2.mixer_position.\3"),
        (BLOCK + r"norm1\.(.*)", r"stages.\1.\2.norm.\3"),
        (BLOCK + r"attn\.conv2d\.(.*)", r"stages.\1.\2.mixer.conv.\3"),
        (BLOCK + r"attn\.norm\.(.*)", r"stages.\1.\2.mixer.out_norm.\3"),
        (BLOCK + r"attn\.to_qkv\.(.*)", r"stages.\1.\2.mixer.in_proj.\3"),
        (BLOCK + r"attn\.to_out\.(.*)", r"stages.\1.\2.mixer.out_proj.\3"),
        (BLOCK + r"attn\.((?:in_proj|out_proj)\..*|dt_bias|A_log|D)", r"stages.\1.\2.mixer.\3"),
        (BLOCK + r"cpe2\.(.*)", r"stages.\1.\2.ffn_position.\3"),
        (BLOCK + r"norm2\.(.*)", r"stages.\1.\2.ffn_norm.\3"),
        (BLOCK + r"mlp\.fc1\.(.*)", r"stages.\1.\2.ffn.widen.\3"),
        (BLOCK + r"mlp\.fc2\.(.*)", r"stages.\1.\2.ffn.narrow.\3"),
        (STEP + r"0\.(.*)", r"steps.\1.widen.\2"),
        (STEP + r"1\.(.*)", r"steps.\1.halve.\2"),
        (STEP + r"2\.(.*)", r"steps.\1.narrow.\2"),
        # The classifier's norm stands behind the last map, where a backbone has its own.
        (r"norm\.(.*)", r"norms.3.\1"),
        (r"outnorm(\d)\.(.*)", r"norms.\1.\2"),
    ),
    reshape=_reshape,
    dropped=r"head\..*",
    absent=r"norms\.[0-2]\..*",
    detect=_detect,
)
