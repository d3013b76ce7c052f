"""What a file is, in a few facts: a raster, a mask, a bundle or a run."""

import json
from pathlib import Path
from typing import Any

from cvmh.config import RunConfig
from cvmh.errors import CvmhError, DataError
from cvmh.geo.bands import match_bands
from cvmh.geo.raster import Raster
from cvmh.geo.validity import find_alpha
from cvmh.models.bundle import BundleCard, read_card
from cvmh.predict.checks import check_values

Facts = dict[str, Any]


def describe(path: Path, *, checkpoint: Path | None = None) -> Facts:
    """Return the facts about a file or a run folder, in the order to print them.

    Args:
        path: a raster, a mask, a bundle or a run folder.
        checkpoint: a bundle; for a raster, say whether it fits.

    Raises:
        CvmhError: the file cannot be read as any of them.
    """
    if path.is_dir():
        return _describe_run(path)
    if path.suffix == ".safetensors":
        return _describe_bundle(path)
    return _describe_raster(path, read_card(checkpoint) if checkpoint else None)


def _describe_run(folder: Path) -> Facts:
    if not (folder / "run.json").exists() or not (folder / "config.yaml").exists():
        raise DataError(f"{folder} is no run folder; it has no config.yaml and run.json")
    try:
        state = json.loads((folder / "run.json").read_text())
    except ValueError as error:
        raise DataError(f"{folder / 'run.json'} is damaged ({error})") from error
    config = RunConfig.read(folder / "config.yaml")
    history = folder / "metrics.csv"
    epochs = len(history.read_text().splitlines()) - 1 if history.exists() else 0
    finished = state["state"] == "finished"
    return {
        "kind": "run",
        "state": "finished" if finished else "not finished; continue it with --resume",
        "model": config.model.name,
        "dataset": config.data.dataset,
        "root": str(config.data.root),
        "epochs": f"{epochs} of {config.train.epochs}" if not config.train.minutes else epochs,
        "best": state["best"],
        "bundle": str(folder / "best.safetensors") if finished else None,
        "command": state["command"],
        "data_fingerprint": state["data_fingerprint"],
        "versions": state["versions"],
    }


def _describe_bundle(path: Path) -> Facts:
    card = read_card(path)
    facts = card.model_dump(mode="json")
    facts["classes"] = card.classes.names
    facts["scores"] = {
        key: card.scores[key]
        for key in ("protocol", "split", "keep", "miou", "mf1", "oa")
        if key in card.scores
    }
    facts["calibration"] = _say_calibration(card)
    facts["area_sample"] = _say_sample(card)
    return {"kind": "bundle", **facts}


def _say_calibration(card: BundleCard) -> str:
    found = card.calibration
    if found is None:
        return "not calibrated" if card.temperature == 1 else "not recorded"
    before, after = found.before.ece, found.after.ece
    return (
        f"on split '{found.split}', {found.pixels:,} pixels: temperature {card.temperature:.3g} "
        f"takes the calibration error (ECE) from {before:.2%} to {after:.2%}"
    )


def _say_sample(card: BundleCard) -> str:
    found = card.area_sample
    if found is None:
        return "none, so 'cvmh predict --report' estimates no areas"
    pixels = int(found.counts(len(card.classes)).sum())
    return f"split '{found.split}', {pixels:,} pixels in {found.extent}"


def _describe_raster(path: Path, card: BundleCard | None) -> Facts:
    with Raster(path) as raster:
        tags = {
            name.removeprefix("CVMH_").lower(): text
            for name, text in raster.tags.items()
            if name.startswith("CVMH_")
        }
        facts: Facts = {
            "kind": "mask" if tags else "raster",
            "size": f"{raster.height} rows x {raster.width} columns",
            "bands": list(raster.band_names),
            "dtype": sorted(set(raster.dtypes)),
            "nodata": list(raster.nodata),
            "alpha": _alpha(raster),
            "crs": raster.crs.to_string() if raster.crs else None,
            "gsd_m": raster.gsd,
            "gcps": len(raster.gcps),
            "rpcs": raster.rpcs is not None,
            **tags,
        }
        if card is not None:
            facts["fits"] = _fits(raster, card)
    return facts


def _alpha(raster: Raster) -> str:
    if raster.tagged_alpha is None:
        return "none"
    if find_alpha(raster) is None:
        return f"band {raster.tagged_alpha} is tagged alpha but holds data"
    return f"band {raster.tagged_alpha}"


def _fits(raster: Raster, card: BundleCard) -> str:
    try:
        bands = match_bands(card.band_names, raster, explicit=None)
        check_values(raster, bands, card)
    except CvmhError as error:
        return f"no: {error}"
    return f"yes, with bands {list(bands)}"
