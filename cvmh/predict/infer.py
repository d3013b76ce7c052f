"""Running the network over tiles, in batches of one size.

Legend: B batch, C bands, K classes, H height, W width.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cvmh.errors import BundleError, ConfigError
from cvmh.geo.tiling import Window
from cvmh.models.bundle import Bundle
from cvmh.predict.read import Tile

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Empty tiles wait for the batch in which they stand; this many batches of them at most.
MAX_WAITING = 4


class ScoredTile(NamedTuple):
    """A tile and its scores (K, H, W), None where no pixel is data."""

    tile: Tile
    scores_KHW: NDArray[np.float32] | None


class Engine:
    """Runs a bundle's network; each tile's scores depend on that tile alone.

    Every batch has the same shape, the last one padded with zeros: kernels are chosen by shape,
    so a tile gets the same bits wherever it stands, at the end of a scene too.

    Args:
        bundle: network and card.
        batch: tiles in one forward pass.
        device: "auto", "cpu", "cuda", "cuda:1" ..., "mps".
        precision: "auto", "fp32" or "bf16"; auto is bf16 on cuda, else fp32.

    Raises:
        ConfigError: the device or the precision is unknown or not there.
    """

    def __init__(self, bundle: Bundle, *, batch: int, device: str, precision: str) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1 tile, got {batch}")
        self._card = bundle.card
        self._batch = batch
        self._device = choose_device(device)
        self._dtype = choose_precision(precision, self._device)
        self._network = bundle.network.to(self._device).eval()

    def run(self, tiles: Iterable[Tile]) -> Iterator[ScoredTile]:
        """Yield the tiles in the order they came, with their scores.

        Raises:
            BundleError: the network's output has the wrong shape or is not finite.
        """
        waiting: list[Tile] = []
        num_live = 0
        for tile in tiles:
            waiting.append(tile)
            num_live += not tile.is_empty
            if num_live == self._batch or len(waiting) == MAX_WAITING * self._batch:
                yield from self._score(waiting)
                waiting, num_live = [], 0
        yield from self._score(waiting)

    def _score(self, tiles: list[Tile]) -> Iterator[ScoredTile]:
        live = [tile for tile in tiles if not tile.is_empty]
        scores = iter(self._forward(live) if live else ())
        for tile in tiles:
            yield ScoredTile(tile, None if tile.is_empty else next(scores))

    def _forward(self, live: list[Tile]) -> NDArray[np.float32]:
        """Return the scores (B, K, H, W) of some tiles; they sum to one over the classes."""
        pixels_BCHW = np.zeros((self._batch, *live[0].pixels_CHW.shape), dtype=np.float32)
        for place, tile in zip(pixels_BCHW, live, strict=False):
            place[:] = tile.pixels_CHW
        low = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=low):
            logits_BKHW = self._network(torch.from_numpy(pixels_BCHW).to(self._device))
        self._check(logits_BKHW, live)
        logits_BKHW = logits_BKHW[: len(live)].float() / self._card.temperature
        return np.asarray(torch.softmax(logits_BKHW, dim=1).cpu().numpy())

    def _check(self, logits_BKHW: torch.Tensor, live: list[Tile]) -> None:
        window = live[0].window
        expected = (self._batch, len(self._card.classes), window.height, window.width)
        if tuple(logits_BKHW.shape) != expected:
            raise BundleError(
                f"network '{self._card.model}' must give logits of shape {expected}, "
                f"got {tuple(logits_BKHW.shape)}"
            )
        is_finite_B = torch.isfinite(logits_BKHW[: len(live)]).flatten(1).all(dim=1).tolist()
        if not all(is_finite_B):
            where: Window = live[is_finite_B.index(False)].window
            raise BundleError(
                f"network '{self._card.model}' must give finite scores, got NaN or infinity at "
                f"{where}; try --precision fp32, or train the bundle again"
            )


def choose_device(name: str) -> torch.device:
    """Return the device that a name means; "auto" is cuda where there is one, else cpu.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device must be auto, {', '.join(DEVICES)} or cuda:N, got '{name}'"
        ) from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 0):
        here = ", ".join(kind for kind, count in counts.items() if count)
        raise ConfigError(f"device '{name}' is not on this machine; it has {here}")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass; "auto" is bf16 on cuda, else fp32.

    Raises:
        ConfigError: the name is unknown.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise ConfigError(f"precision must be auto, {' or '.join(PRECISIONS)}, got '{name}'")
    return PRECISIONS[name]
