"""The demonstration: scenes made here, a small network trained on them, a mask of a new scene."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvmh.classes import ISPRS
from cvmh.config import RunConfig
from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.synthetic_set import write_scene, write_synthetic
from cvmh.errors import OutputError
from cvmh.files import make_folder, write_complete
from cvmh.geo.raster import Raster
from cvmh.metrics import Scores
from cvmh.models.bundle import load_bundle
from cvmh.plots import colour_ids, preview, stretch
from cvmh.predict import predict_raster
from cvmh.progress import Progress, silent
from cvmh.report.evaluation import score_mask
from cvmh.settings import validate
from cvmh.train import train

# Everything that the demonstration leaves; ``training/`` holds its data set and run folder.
FILES = ("scene.tif", "labels.tif", "mask.tif", "preview.png", "scores.json", "model.safetensors")
FOLDER = "training"
SIZE, GSD = 1024, 0.25
NUM_SCENES = 6
# Far from the seeds of the training scenes, which start at the seed of the demonstration.
UNSEEN = 1000
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"name": "cvmh_unet_nano"},
    "data": {"tile": 128, "batch": 8, "crops_per_epoch": 1600},
    "train": {"epochs": 2, "learning_rate": 1e-2},
}


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Where the demonstration left its files, and the scores of its mask."""

    folder: Path
    scores: Scores


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> DemoResult:
    """Make scenes, train the nano network on them, predict and score a scene it has not seen.

    Args:
        out: the folder to leave :data:`FILES` in.
        seed: fixes the scenes and the training.
        overwrite: replace what an earlier demonstration left in ``out``.
        progress: receives the progress of each stage.
        tell: receives a line as each stage begins.

    Raises:
        OutputError: ``out`` is not empty and ``overwrite`` is not set, or cannot be written.
    """
    _prepare(out, overwrite=overwrite)
    tell(f"making {NUM_SCENES} labelled scenes of {SIZE} x {SIZE} pixels")
    data_root, run_folder = out / FOLDER / "data", out / FOLDER / "run"
    write_synthetic(
        data_root,
        num_scenes=NUM_SCENES,
        seed=seed,
        height=SIZE,
        width=SIZE,
        gsd=GSD,
        progress=progress,
    )
    tell("training cvmh_unet_nano on them")
    data = {**SETTINGS["data"], "dataset": "folder", "root": str(data_root)}
    settings = {**SETTINGS, "data": data, "train": {**SETTINGS["train"], "seed": seed}}
    result = train(validate(RunConfig, settings, source="demo"), run_folder, progress=progress)
    tell("predicting a scene that it has not seen")
    scene, labels, mask = out / "scene.tif", out / "labels.tif", out / "mask.tif"
    write_scene(seed + UNSEEN, scene, labels, height=SIZE, width=SIZE, gsd=GSD)
    shutil.copyfile(result.bundle, out / "model.safetensors")
    predict_raster(scene, mask, load_bundle(out / "model.safetensors"), progress=progress)
    entry = LabelledImage(stem="scene", image=scene, label=labels, split="demo")
    known = SegmentationData(name="demo", root=out, classes=ISPRS, images=(entry,))
    scores = score_mask(entry, mask, known)
    write_complete(out / "scores.json", json.dumps([scores.to_json()], indent=1) + "\n")
    draw_preview(out / "preview.png", scene, labels, mask)
    return DemoResult(folder=out, scores=scores)


def draw_preview(path: Path, scene: Path, labels: Path, mask: Path) -> None:
    """Draw a scene, its labels and its mask side by side with a legend."""
    with Raster(scene) as raster, Raster(labels) as truth, Raster(mask) as predicted:
        image, label_ids, mask_ids = raster.read(), truth.read()[0], predicted.read()[0]
    panels = {
        "scene": stretch(image, np.any(image != 0, axis=0)),
        "labels": colour_ids(label_ids, ISPRS),
        "mask": colour_ids(mask_ids, ISPRS),
    }
    preview(path, panels, ISPRS)


def _prepare(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; choose a folder with --out")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out} is not empty; choose another --out, or give --overwrite")
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
    make_folder(out)
