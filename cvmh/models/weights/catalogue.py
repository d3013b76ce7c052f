"""The weights that others have published for our encoders: where they are, and whose they are."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from cvmh.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A published file: the encoder that it is of, its name here, its address, and its licence.

    ``task`` is what it was trained for. ``sha256`` is None where the publishers tell none.
    """

    variant: str
    file: str
    address: str
    licence: str
    task: str
    sha256: str | None = None


# What the end of a name says of the task; the rest is the encoder's name.
TASKS = {
    "_mesa": "ImageNet-1k classification, trained with MESA",
    "_ade20k": "ADE20K segmentation with UperNet",
    "": "ImageNet-1k classification",
}
VMAMBA = "https://github.com/MzeroMiko/VMamba/releases/download/%23"
VMAMBA_FILES = {
    "vmamba_tiny_v0": "v0cls/vssmtiny_dp01_ckpt_epoch_292.pth",
    "vmamba_small_v0": "v0cls/vssmsmall_dp03_ckpt_epoch_238.pth",
    "vmamba_base_v0": "v0cls/vssmbase_dp06_ckpt_epoch_241.pth",
    "vmamba_tiny_s2l5": "v2cls/vssm_tiny_0230_ckpt_epoch_262.pth",
    "vmamba_tiny_s1l8": "v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth",
    "vmamba_small_s2l15": "v2cls/vssm_small_0229_ckpt_epoch_222.pth",
    "vmamba_small_s1l20": "v2cls/vssm1_small_0229s_ckpt_epoch_240.pth",
    "vmamba_base_s2l15": "v2cls/vssm_base_0229_ckpt_epoch_237.pth",
    "vmamba_base_s1l20": "v2cls/vssm1_base_0229s_ckpt_epoch_225.pth",
    "vmamba_tiny_v0_ade20k": "v0seg/vssmtiny_upernet_4xb4-160k_ade20k-512x512_iter_160000.pth",
    "vmamba_small_v0_ade20k": "v0seg/vssmsmall_upernet_4xb4-160k_ade20k-512x512_iter_160000.pth",
    "vmamba_base_v0_ade20k": "v0seg/vssmbase_upernet_4xb4-160k_ade20k-512x512_iter_128000.pth",
    "vmamba_tiny_s2l5_ade20k": "v2seg/upernet_vssm_4xb4-160k_ade20k-512x512_tiny_iter_160000.pth",
    "vmamba_tiny_s1l8_ade20k": "v2seg/upernet_vssm_4xb4-160k_ade20k-512x512_tiny_s_iter_160000.pth",
    "vmamba_small_s2l15_ade20k": (
        "v2seg/upernet_vssm_4xb4-160k_ade20k-512x512_small_iter_144000.pth"
    ),
    "vmamba_base_s2l15_ade20k": "v2seg/upernet_vssm_4xb4-160k_ade20k-512x512_base_iter_160000.pth",
}
VSSD = "https://huggingface.co/YuhengSSS/VSSD/resolve/main/"
VSSD_FILES = {
    "vssd_micro": "vssd_micro_best.pth",
    "vssd_tiny": "vssd_tiny_best_ema.pth",
    "vssd_small": "vssd_small_best_ema.pth",
    "vssd_base": "vssd_base_best_ema.pth",
    "vssd_tiny_mesa": "vssd_tiny_e300_with_mesa.pth",
    "vssd_small_mesa": "vssd_small_e300_with_mesa.pth",
    "vssd_base_mesa": "vssd_base_e300_with_mesa.pth",
    "vssd_micro_ade20k": "upernet_vssd_final_4xb4-160k_ade20k-512x512_micro.pth",
    "vssd_tiny_ade20k": "upernet_vssd_4xb4-160k_ade20k-512x512_tiny.pth",
}
# These addresses tell no names of files.
GROUPMAMBA = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
GROUPMAMBA_FILES = {
    "groupmamba_tiny": "1TrYYs0uGZbja_2ONQLyfiNdp8C5ZYP1o",
    "groupmamba_small": "1vTN9ynDcsDuOVrcT9GcQ5nBSk-hXySlh",
    "groupmamba_base": "1A_srBeDYpsinU5W3PAEADu1saoz413EU",
}
PLAINMAMBA = "https://huggingface.co/ChenhongyiYang/PlainMamba/resolve/main/"
PLAINMAMBA_FILES = {
    "plainmamba_l1": "l1.pth",
    "plainmamba_l2": "l2.pth",
    "plainmamba_l3": "l3.pth",
    "plainmamba_l1_ade20k": "segmentation/l1_upernet.pth",
    "plainmamba_l2_ade20k": "segmentation/l2_upernet.pth",
    "plainmamba_l3_ade20k": "segmentation/l3_upernet.pth",
}
SOURCES = (
    (VMAMBA, VMAMBA_FILES, "MIT"),
    (VSSD, VSSD_FILES, "none stated"),
    (GROUPMAMBA, GROUPMAMBA_FILES, "MIT"),
    (PLAINMAMBA, PLAINMAMBA_FILES, "Apache-2.0"),
)
# Files whose own names say too little, or nothing, are named as here.
NAMED_HERE = (GROUPMAMBA, PLAINMAMBA)


def _published(name: str, place: str, path: str, licence: str) -> PublishedFile:
    ending = next(ending for ending in TASKS if name.endswith(ending))
    return PublishedFile(
        variant=name.removesuffix(ending),
        file=f"{name}.pth" if place in NAMED_HERE else path.rpartition("/")[2],
        address=place + path,
        licence=licence,
        task=TASKS[ending],
    )


CATALOGUE: Mapping[str, PublishedFile] = {
    name: _published(name, place, path, licence)
    for place, files, licence in SOURCES
    for name, path in files.items()
}


def is_published(name: str) -> bool:
    """Return whether the catalogue has a name, or a file of that name."""
    return name in CATALOGUE or any(name == published.file for published in CATALOGUE.values())


def look_up(name: str) -> PublishedFile:
    """Return a published file by its name in the catalogue, or by that of the file.

    Raises:
        WeightsError: the catalogue has no such name; the message names the nearest right one.
    """
    by_file = {published.file: published for published in CATALOGUE.values()}
    if is_published(name):
        return CATALOGUE.get(name) or by_file[name]
    is_address = "://" in name
    # Of an address its end may be the name of a file.
    wanted = name.rpartition("/")[2] if is_address else name
    close = difflib.get_close_matches(wanted.lower(), [*CATALOGUE, *by_file], n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(CATALOGUE)}"
    if is_address:
        what = f"weights are a file or a name, got the address {name}; fetch it and give the file"
    else:
        what = f"there is no file '{name}', and no published weights of that name"
    raise WeightsError(f"{what}; {hint}")
