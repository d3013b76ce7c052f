"""How the published files of VMamba name what our encoders hold.

There is a layout for each generation, because the same names mean different layers in them. Each
reads all styles of its generation: that of the first months, in which the files of v0 are, that of
the classification code, and that of the newer single file.
"""

from functools import partial
from typing import Any

from cvmh.models.encoders.vmamba import VMAMBA, VMambaSettings
from cvmh.models.weights.detection import find_variant, num_rows, stage_depths
from cvmh.models.weights.layout import Layout, Renames, Weights
from cvmh.models.weights.scan_names import reshape_scan, scan_renames

BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
SCAN = r"(?:op|self_attention)\."
STEP = r"layers\.(\d+)\.downsample\."
FIRST = r"layers\.0\.blocks\.0\."

BLOCK_RENAMES = (
    (BLOCK + r"(?:norm|ln_1)\.(\w+)", r"stages.\1.\2.norm.\3"),
    *scan_renames(BLOCK + SCAN, r"stages.\1.\2.mixer."),
    (BLOCK + r"norm2\.(\w+)", r"stages.\1.\2.ffn_norm.\3"),
    (BLOCK + r"mlp\.fc1\.(\w+)", r"stages.\1.\2.ffn.widen.\3"),
    (BLOCK + r"mlp\.fc2\.(\w+)", r"stages.\1.\2.ffn.narrow.\3"),
    (r"outnorm(\d)\.(\w+)", r"norms.\1.\2"),
    # The classifier's norm stands behind the last map, where a backbone has its own.
    (r"(?:classifier\.)?norm\.(\w+)", r"norms.3.\1"),
)
V0_RENAMES = (
    (r"patch_embed\.(?:proj|0)\.(\w+)", r"stem.conv.\1"),
    (r"patch_embed\.(?:norm|2)\.(\w+)", r"stem.norm.\1"),
    (STEP + r"(?:norm|1)\.(\w+)", r"steps.\1.norm.\2"),
    (STEP + r"(?:reduction|2)\.(\w+)", r"steps.\1.reduce.\2"),
)
V2_RENAMES = (
    (r"patch_embed\.0\.(\w+)", r"stem.first.conv.\1"),
    (r"patch_embed\.2\.(\w+)", r"stem.first.norm.\1"),
    (r"patch_embed\.5\.(\w+)", r"stem.second.conv.\1"),
    (r"patch_embed\.7\.(\w+)", r"stem.second.norm.\1"),
    (STEP + r"1\.(\w+)", r"steps.\1.conv.\2"),
    (STEP + r"3\.(\w+)", r"steps.\1.norm.\2"),
)


def _detect(weights: Weights, *, generation: str) -> str | None:
    width = num_rows(weights, FIRST + r"(?:norm|ln_1)\.weight")
    inner = num_rows(weights, FIRST + SCAN + r"out_norm\.weight")
    is_gated = num_rows(weights, FIRST + SCAN + r"in_proj\.weight") == 2 * inner
    found = "v0" if is_gated else "v2", width, inner, stage_depths(weights, BLOCK)
    return find_variant(VMAMBA, found, _facts_of) if found[0] == generation else None


def _facts_of(settings: VMambaSettings) -> tuple[Any, ...]:
    inner = int(settings.expand * settings.width)
    return settings.generation, settings.width, inner, settings.depths


def _layout(generation: str, renames: Renames) -> Layout:
    return Layout(
        prefixes=("backbone.",),
        renames=(*renames, *BLOCK_RENAMES),
        reshape=partial(reshape_scan, num_paths=4),
        dropped=r"(classifier\.)?head\..*",
        absent=r"norms\.[0-2]\..*",
        detect=partial(_detect, generation=generation),
    )


VMAMBA_V0_LAYOUT = _layout("v0", V0_RENAMES)
VMAMBA_V2_LAYOUT = _layout("v2", V2_RENAMES)
