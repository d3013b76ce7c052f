"""How the published files of VSSD name what our encoders hold."""

from typing import Any

from cvmh.models.encoders.vssd import VSSDS, VSSDSettings, widths_of
from cvmh.models.weights.detection import find_variant, num_rows, stage_depths
from cvmh.models.weights.layout import Layout, Weights

BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
STEP = r"layers\.(\d+)\.downsample\.conv\."
FIRST = r"layers\.0\.blocks\.0\.attn\."


def _detect(weights: Weights) -> str | None:
    found = (
        stage_depths(weights, BLOCK),
        num_rows(weights, FIRST + r"dt_bias"),
        num_rows(weights, FIRST + r"norm\.weight"),
        num_rows(weights, FIRST + r"conv2d\.weight"),
        num_rows(weights, r"layers\.3\.blocks\.0\.attn\.to_out\.weight"),
    )
    return find_variant(VSSDS, found, _facts_of)


def _facts_of(settings: VSSDSettings) -> tuple[Any, ...]:
    inner = int(settings.expand * settings.width)
    mixed, last = inner + 2 * settings.d_state, widths_of(settings.width)[-1]
    return settings.depths, settings.heads[0], inner, mixed, last


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
    # Shapes are ours.
    reshape=lambda key, tensor: tensor,
    dropped=r"head\..*",
    absent=r"norms\.[0-2]\..*",
    detect=_detect,
)
