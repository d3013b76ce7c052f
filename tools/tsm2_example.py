"""Forecast a vegetation index per pixel and tell crops apart with TSM2, on made series.

    python tools/tsm2_example.py --task forecast
    python tools/tsm2_example.py --task classify --seeds 0 1 2

Trains on some regions, prints what it and its baselines reach on others; docs/tsm2.md explains.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from made_series import COVERS, STEPS_A_YEAR, Array, make_pixels
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from cvmh.models.tsm2 import (
    ClassifierSettings,
    ForecasterSettings,
    TSM2Classifier,
    TSM2Forecaster,
)

# Two years are known, four months are asked for.
HISTORY, HORIZON = 2 * STEPS_A_YEAR, 12
YEARS = 4
BATCH = 128
# The regions of a split have seeds of their own, far from those of other runs.
SPLITS = {"train": 0, "val": 1, "test": 2}
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


class Samples(NamedTuple):
    """What is known of pixels, with auxiliaries near mean 0 and deviation 1, and the answer."""

    series: Array
    static: Array
    varying: Array
    wanted: Array

    def tensors(self) -> list[Tensor]:
        """Return the parts as tensors."""
        return [torch.from_numpy(part) for part in self]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    tasks = {"forecast": forecast, "classify": classify}
    for name in tasks if options.task == "both" else [options.task]:
        for row in table(name, [tasks[name](options, seed) for seed in options.seeds]):
            print(row)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["forecast", "classify", "both"], default="both")
    parser.add_argument("--pixels", type=int, default=4000, help="to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def forecast(options: argparse.Namespace, seed: int) -> dict[str, tuple[float, ...]]:
    """Return RMSE and MAE of the NDVI of the next four months, of baselines and of TSM2."""
    train, val, test = (
        cut_windows(split, options.pixels // share, seed)
        for split, share in (("train", 1), ("val", 4), ("test", 4))
    )
    filled = fill(test.series)
    found = {
        "last value": np.repeat(filled[..., -1:], HORIZON, axis=2),
        "a year before": filled[..., HISTORY - STEPS_A_YEAR :][..., :HORIZON],
        "linear regression": regress(train, val, test),
    }
    torch.manual_seed(seed)
    network = TSM2Forecaster(ForecasterSettings(variates=2, horizon=HORIZON, static=2, varying=1))
    seconds = fit(network, train, squared_error, options.epochs)
    found["TSM2"] = answer(network, test)
    rows = {name: errors(values, test.wanted) for name, values in found.items()}
    print(f"seed {seed}: {count(network)} weights, {seconds:.0f} s")
    return rows


def classify(options: argparse.Namespace, seed: int) -> dict[str, tuple[float, ...]]:
    """Return overall accuracy and mean F1 of the crops of a year, of baselines and of TSM2."""
    train = cut_years("train", options.pixels, seed)
    test = cut_years("test", options.pixels // 2, seed)
    scaler = StandardScaler().fit(flat(train))
    known = [scaler.transform(flat(samples)) for samples in (train, test)]
    found = {}
    for name, model in (
        ("nearest centroid", NearestCentroid()),
        ("logistic regression", LogisticRegression(max_iter=1000)),
    ):
        found[name] = model.fit(known[0], train.wanted).predict(known[1])
    torch.manual_seed(seed)
    network = TSM2Classifier(
        ClassifierSettings(variates=2, num_classes=len(COVERS), static=2, varying=1)
    )
    seconds = fit(network, train, functional.cross_entropy, options.epochs)
    found["TSM2"] = answer(network, test).argmax(axis=1)
    rows = {name: agreement(ids, test.wanted) for name, ids in found.items()}
    print(f"seed {seed}: {count(network)} weights, {seconds:.0f} s")
    return rows


def cut_windows(split: str, num_pixels: int, seed: int) -> Samples:
    """Return two years of each pixel and the four months after them, beginning at any step."""
    pixels = make_pixels(num_pixels, years=YEARS, seed=10 * seed + SPLITS[split])
    rng = np.random.default_rng(seed)
    length = HISTORY + HORIZON
    # Two windows of each pixel.
    pixel = np.tile(np.arange(num_pixels), 2)
    start = rng.integers(YEARS * STEPS_A_YEAR - length + 1, size=len(pixel))
    steps = (start[:, None] + np.arange(length))[:, None]
    index = np.take_along_axis(pixels.index[pixel], steps, axis=2)
    warmth = np.take_along_axis(pixels.temperature[pixel], steps[..., :HISTORY], axis=2)
    return Samples(
        index[..., :HISTORY],
        scaled_static(pixels.static)[pixel],
        scaled_warmth(warmth),
        index[..., HISTORY:],
    )


def cut_years(split: str, num_pixels: int, seed: int) -> Samples:
    """Return the second year of each pixel, and what grew in it."""
    pixels = make_pixels(num_pixels, years=2, seed=10 * seed + SPLITS[split])
    return Samples(
        # Near mean 0 and deviation 1, by numbers that hold for any vegetation.
        (pixels.index[..., STEPS_A_YEAR:] - np.float32(0.3)) / np.float32(0.25),
        scaled_static(pixels.static),
        scaled_warmth(pixels.temperature[..., STEPS_A_YEAR:]),
        pixels.cover[:, 1],
    )


def scaled_static(static: Array) -> Array:
    return (static - np.float32([600, 0.5])) / np.float32([350, 0.3])


def scaled_warmth(temperature: Array) -> Array:
    return (temperature - np.float32(6)) / np.float32(9)


def fill(series: Array) -> Array:
    """Return series whose gaps are filled from straight lines between what is known."""
    steps, filled = np.arange(series.shape[-1]), series.copy()
    for row in filled.reshape(-1, len(steps)):
        is_known = ~np.isnan(row)
        row[:] = np.interp(steps, steps[is_known], row[is_known]) if is_known.any() else 0
    return filled


def flat(samples: Samples) -> Array:
    """Return all that is known of each sample as one row: the baselines know what TSM2 knows."""
    parts = fill(samples.series), samples.static, samples.varying
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def regress(train: Samples, val: Samples, test: Samples) -> Array:
    """Return what ridge regression forecasts, with the penalty that is best on ``val``."""
    scaler = StandardScaler().fit(flat(train))
    wanted = fill(train.wanted).reshape(len(train.wanted), -1)
    models = [Ridge(alpha=alpha).fit(scaler.transform(flat(train)), wanted) for alpha in PENALTIES]

    def forecasts(model: Ridge, samples: Samples) -> Array:
        return model.predict(scaler.transform(flat(samples))).reshape(samples.wanted.shape)

    best = min(models, key=lambda model: errors(forecasts(model, val), val.wanted)[0])
    return forecasts(best, test)


def fit(
    network: nn.Module, train: Samples, loss: Callable[[Tensor, Tensor], Tensor], epochs: int
) -> float:
    """Train a network with AdamW and a cycle of its rate; return the seconds."""
    *known, wanted = train.tensors()
    num_batches = len(wanted) // BATCH
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=3e-3, total_steps=epochs * num_batches
    )
    started = time.monotonic()
    for _ in range(epochs):
        for rows in torch.randperm(len(wanted))[: num_batches * BATCH].split(BATCH):
            optimiser.zero_grad()
            loss(network(*(part[rows] for part in known)), wanted[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return time.monotonic() - started


def squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean over what was seen; clouds hide answers too."""
    is_known = ~wanted.isnan()
    return functional.mse_loss(found[is_known], wanted[is_known])


@torch.no_grad()
def answer(network: nn.Module, samples: Samples) -> Array:
    network.eval()
    *known, _ = samples.tensors()
    parts = zip(*(part.split(1000) for part in known), strict=True)
    return torch.cat([network(*part) for part in parts]).numpy()


def errors(found: Array, wanted: Array) -> tuple[float, float]:
    """Return RMSE and MAE of NDVI where it was seen."""
    difference = (found - wanted)[:, 0]
    seen = difference[~np.isnan(difference)]
    return float(np.sqrt((seen**2).mean())), float(np.abs(seen).mean())


def agreement(found: Array, wanted: Array) -> tuple[float, float]:
    """Return overall accuracy and the mean F1 of the classes."""
    scores = []
    for index in range(len(COVERS)):
        right = ((found == index) & (wanted == index)).sum()
        scores.append(2 * right / ((found == index).sum() + (wanted == index).sum()))
    return float((found == wanted).mean()), float(np.mean(scores))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def table(task: str, runs: list[dict[str, tuple[float, ...]]]) -> list[str]:
    """Return a Markdown table of means over seeds, and deviations where there are several."""
    columns = {"forecast": "RMSE | MAE", "classify": "accuracy | mean F1"}[task]
    rows = [f"| {task} | {columns} |", "|---|---|---|"]
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        cells = [f"{mean:.4f}" for mean in values.mean(axis=0)]
        if len(runs) > 1:
            spread = values.std(axis=0, ddof=1)
            cells = [f"{cell} ± {each:.4f}" for cell, each in zip(cells, spread, strict=True)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()
