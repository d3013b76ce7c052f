"""Making the scores of a finished bundle mean what they say, and taking the sample for areas.

Legend: B batch, K classes, H height, W width, N pixels.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp
from torch import nn
from torch.utils.data import DataLoader

from cvmh.classes import NODATA_ID
from cvmh.datasets.crops import ValidationTiles
from cvmh.errors import TrainingError
from cvmh.metrics import count_confusion
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.calibration import Calibration, ReliabilityCounter
from cvmh.models.bundle import load_bundle, save_bundle
from cvmh.progress import Progress, silent
from cvmh.train.clusters import assign_clusters, find_places

# The temperature is fitted to at most so many numbers, 16 MB as float64; more change it by less
# than its fourth digit.
MOST_LOGITS = 2_000_000
COLDEST, HOTTEST = 0.05, 20.0


def calibrate(
    path: Path,
    loader: DataLoader[Any],
    *,
    split: str,
    device: torch.device,
    progress: Progress = silent,
) -> None:
    """Run a bundle's network over the validation tiles once and write what that tells into it.

    The temperature is that of Guo et al. 2017 (On Calibration of Modern Neural Networks), which
    minimises the negative log-likelihood of the labelled pixels. It leaves the best class of every
    pixel of a tile the best. A bundle is replaced when all is done, so this may be broken off and
    done again.

    Args:
        path: the bundle; its temperature, calibration and area sample are replaced.
        loader: batches of validation tiles, in any order.
        split: what the tiles are of.
        device: where the network runs.
        progress: receives the tiles that are done.

    Raises:
        TrainingError: the network gives a score that is not finite.
        OutputError: the bundle cannot be written.
    """
    bundle = load_bundle(path)
    tiles = loader.dataset
    assert isinstance(tiles, ValidationTiles), "areas need to know which image a tile is of"
    places = find_places([image.image for image in tiles.reader.images])
    clusters = assign_clusters(tiles.image_numbers, places)
    pixels = PixelSample(len(tiles), tiles.reader.tile**2, len(bundle.card.classes))
    num_classes = len(bundle.card.classes)
    counts = np.zeros((clusters.total, num_classes, num_classes), dtype=np.int64)
    done = 0
    network = bundle.network.to(device)
    for images, labels, indices in loader:
        logits_BKHW = _run(network, images.to(device))
        ids = logits_BKHW.argmax(dim=1).cpu().numpy()
        labels_BHW = labels.numpy()
        for place, index in enumerate(indices.tolist()):
            _check(logits_BKHW[place], index)
            found = count_confusion(labels_BHW[place], ids[place], num_classes)
            counts[clusters.numbers[index]] += found
            pixels.add(index, logits_BKHW[place], labels_BHW[place])
        done += len(indices)
        progress("calibrate", done, len(tiles), "tiles")
    sample = AreaSample.of(counts, split=split, kind=clusters.kind)
    card = bundle.card.model_copy(update={"area_sample": sample, **pixels.fit(split)})
    save_bundle(path, network, card)


class PixelSample:
    """The logits and labels of every so-many-th pixel of some tiles, which are on a skew lattice.

    Args:
        num_tiles: the number of tiles.
        area: the pixels of a tile.
        num_classes: the logits of a pixel.
    """

    def __init__(self, num_tiles: int, area: int, num_classes: int) -> None:
        self._area = area
        self._step = max(1, math.ceil(num_tiles * area * num_classes / MOST_LOGITS))
        # A step that shares a factor with the width of a tile would visit few of its columns.
        while math.gcd(self._step, area) > 1:
            self._step += 1
        self._logits: list[NDArray[np.float32]] = []
        self._labels: list[NDArray[np.int64]] = []

    def add(self, index: int, logits_KHW: torch.Tensor, labels_HW: NDArray[np.int64]) -> None:
        """Add the labelled pixels of a tile that lie on the lattice."""
        chosen = np.arange(-index * self._area % self._step, self._area, self._step)
        chosen = chosen[labels_HW.ravel()[chosen] != NODATA_ID]
        flat_KN = logits_KHW.flatten(1)[:, torch.from_numpy(chosen).to(logits_KHW.device)]
        self._logits.append(flat_KN.T.cpu().numpy())
        self._labels.append(labels_HW.ravel()[chosen])

    def fit(self, split: str) -> dict[str, Any]:
        """Return the temperature of a card and its calibration, None without labelled pixels."""
        labels_N = np.concatenate(self._labels) if self._labels else np.zeros(0, dtype=np.int64)
        if not len(labels_N):
            return {"temperature": 1.0, "calibration": None}
        logits_NK = np.concatenate(self._logits).astype(np.float64)
        temperature = fit_temperature(logits_NK, labels_N)
        counters = [ReliabilityCounter(logits_NK.shape[1]) for _ in range(2)]
        losses = []
        for counter, scale in zip(counters, (1.0, temperature), strict=True):
            scaled_NK = logits_NK / scale
            totals_N = logsumexp(scaled_NK, axis=1)
            confidence_N = np.exp(scaled_NK.max(axis=1) - totals_N)
            counter.add(labels_N, logits_NK.argmax(axis=1), confidence_N)
            losses.append(float(np.mean(totals_N - _of_label(scaled_NK, labels_N))))
        calibration = Calibration(
            split=split,
            nll_before=losses[0],
            nll_after=losses[1],
            before=counters[0].overall(),
            after=counters[1].overall(),
        )
        return {"temperature": temperature, "calibration": calibration}


def fit_temperature(logits_NK: NDArray[np.float64], labels_N: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the negative log-likelihood of labels.

    In ``b = 1 / temperature`` that is ``mean_n logsumexp(b z_n) - b z_n[y_n]``, which is convex, so
    its slope ``mean_n sum_k p_nk z_nk - z_n[y_n]`` rises and has one zero, found by Brent's method.
    Where it lies beyond 0.05..20, or nothing is ever wrong, the nearer end is returned.
    """
    # Softmax does not change, and numbers near zero lose no digits.
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    true = _of_label(shifted_NK, labels_N).mean()

    def slope(inverse: float) -> float:
        weights_NK = np.exp(inverse * shifted_NK)
        means_N = (weights_NK * shifted_NK).sum(axis=1) / weights_NK.sum(axis=1)
        return float(means_N.mean() - true)

    if not shifted_NK.any():
        # All scores are equal at any temperature.
        return 1.0
    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-9))


@torch.inference_mode()
def _run(network: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    logits_BKHW: torch.Tensor = network(images_BCHW)
    return logits_BKHW.float()


def _check(logits_KHW: torch.Tensor, index: int) -> None:
    if not bool(torch.isfinite(logits_KHW).all()):
        raise TrainingError(
            f"the network gives scores that are not finite on validation tile {index}, so it "
            "cannot be calibrated; train it again with a lower train.learning_rate, or continue "
            "with --resume --set train.calibrate=false"
        )


def _of_label(values_NK: NDArray[np.float64], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.take_along_axis(values_NK, labels_N[:, None], axis=1)[:, 0]
