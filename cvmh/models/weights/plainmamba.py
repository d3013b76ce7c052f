"""How the published files of PlainMamba name what our encoders hold."""

import math
from typing import Any

from torch import Tensor

from cvmh.models.encoders.plainmamba import PLAINMAMBA, PlainMambaSettings
from cvmh.models.weights.detection import find_variant, num_rows, stage_depths
from cvmh.models.weights.layout import Layout, Weights
from cvmh.models.weights.scan_names import reshape_scan

LAYER = r"layers\.(\d+)\."


def _reshape(key: str, tensor: Tensor) -> Tensor:
    if key == "position" and tensor.ndim == 3:
        side = math.isqrt(tensor.shape[1])
        return tensor.unflatten(1, (side, side)) if side**2 == tensor.shape[1] else tensor
    if key.endswith(".dt_bias"):
        return tensor[None]
    return reshape_scan(key, tensor, num_paths=1)


def _detect(weights: Weights) -> str | None:
    found = (
        num_rows(weights, r"patch_embed\.projection\.weight"),
        stage_depths(weights, r"(layers)\.(\d+)\."),
        "layers.0.dw.0.weight" in weights,
    )
    return find_variant(PLAINMAMBA, found, _facts_of)


def _facts_of(settings: PlainMambaSettings) -> tuple[Any, ...]:
    return settings.width, (settings.depth,), settings.has_local


PLAINMAMBA_LAYOUT = Layout(
    prefixes=("backbone.",),
    renames=(
        (r"patch_embed\.(stem|convs)\.(\d+)\.(\w+)", r"tokeniser.\1.\2.\3"),
        (r"patch_embed\.projection\.(\w+)", r"tokeniser.project.\1"),
        (r"pos_embed", r"position"),
        (r"layers\.0\.dw\.0\.(\w+)", r"local.conv.\1"),
        (r"layers\.0\.dw\.1\.(\w+)", r"local.norm.\1"),
        (LAYER + r"norm\.(\w+)", r"layers.\1.norm.\2"),
        (LAYER + r"mamba\.(in_proj|out_proj)\.(\w+)", r"layers.\1.mixer.\2.\3"),
        (LAYER + r"mamba\.conv2d\.(\w+)", r"layers.\1.mixer.conv.\2"),
        (LAYER + r"mamba\.x_proj\.weight", r"layers.\1.mixer.x_proj_weight"),
        (LAYER + r"mamba\.dt_proj\.(weight|bias)", r"layers.\1.mixer.dt_\2"),
        (LAYER + r"mamba\.(A_log|D)", r"layers.\1.mixer.\2"),
        (LAYER + r"mamba\.direction_Bs", r"layers.\1.mixer.direction_weight"),
        (r"ln1\.(\w+)", r"neck_norms.3.\1"),
    ),
    reshape=_reshape,
    dropped=r"head\..*|.*ema_.*",
    absent=r"(neck_norms\.[0-2]|neck_levels)\..*",
    detect=_detect,
)
