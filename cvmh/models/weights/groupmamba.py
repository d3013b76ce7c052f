"""How the published files of GroupMamba name what our encoders hold."""

from functools import partial
from typing import Any

from cvmh.models.encoders.groupmamba import GROUPMAMBA, GroupMambaSettings
from cvmh.models.weights.detection import find_variant, num_rows, stage_depths
from cvmh.models.weights.layout import Layout, Renames, Weights
from cvmh.models.weights.scan_names import reshape_scan, scan_renames

NUM_STAGES = NUM_GROUPS = 4


def _stage_renames(stage: int) -> Renames:
    """Return the pairs of a stage, which they count from 1 and we from 0, as they do groups."""
    block, ours = rf"block{stage}\.(\d+)\.", rf"stages.{stage - 1}.\1."
    groups = [
        scan_renames(rf"{block}attn\.mamba_g{group}\.", rf"{ours}mixer.mixers.{group - 1}.")
        for group in range(1, NUM_GROUPS + 1)
    ]
    return (
        (block + r"attn\.norm\.(\w+)", ours + r"mixer.norm.\2"),
        (block + r"attn\.fc1\.(\w+)", ours + r"mixer.affinity.squeeze.\2"),
        (block + r"attn\.fc2\.(\w+)", ours + r"mixer.affinity.excite.\2"),
        (block + r"attn\.skip_scale", ours + r"mixer.skip_scale"),
        (block + r"attn\.proj\.(\w+)", ours + r"mixer.out_proj.\2"),
        *(pair for group in groups for pair in group),
        (block + r"norm2\.(\w+)", ours + r"ffn_norm.\2"),
        (block + r"mlp\.fc1\.(\w+)", ours + r"ffn.widen.\2"),
        (block + r"mlp\.dwconv\.dwconv\.(\w+)", ours + r"ffn.conv.\2"),
        (block + r"mlp\.fc2\.(\w+)", ours + r"ffn.narrow.\2"),
        (rf"norm{stage}\.(\w+)", rf"norms.{stage - 1}.\1"),
    )


def _step_renames(stage: int) -> Renames:
    step, ours = rf"patch_embed{stage}\.", f"steps.{stage - 2}."
    return (
        (step + r"proj\.(\w+)", ours + r"conv.\1"),
        (step + r"norm\.(\w+)", ours + r"norm.\1"),
    )


def _detect(weights: Weights) -> str | None:
    stages = range(1, NUM_STAGES + 1)
    widths = tuple(num_rows(weights, rf"norm{stage}\.weight") for stage in stages)
    stem = num_rows(weights, r"patch_embed1\.conv\.0\.weight")
    found = stem, widths, stage_depths(weights, r"block(\d)\.(\d+)\.")
    return find_variant(GROUPMAMBA, found, _facts_of)


def _facts_of(settings: GroupMambaSettings) -> tuple[Any, ...]:
    return settings.stem_width, settings.widths, settings.depths


GROUPMAMBA_LAYOUT = Layout(
    prefixes=("backbone.",),
    renames=(
        (r"patch_embed1\.conv\.(\d)\.(\w+)", r"stem.convs.\1.\2"),
        (r"patch_embed1\.proj\.(\w+)", r"stem.step.conv.\1"),
        (r"patch_embed1\.norm\.(\w+)", r"stem.step.norm.\1"),
        *(pair for stage in range(2, NUM_STAGES + 1) for pair in _step_renames(stage)),
        *(pair for stage in range(1, NUM_STAGES + 1) for pair in _stage_renames(stage)),
    ),
    reshape=partial(reshape_scan, num_paths=1),
    dropped=r"(post_network|head|dist_head)\..*",
    absent=r"(?!)",
    detect=_detect,
)
