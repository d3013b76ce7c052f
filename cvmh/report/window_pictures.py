"""Windows of an evaluation as pictures: image, label, prediction, error.

Legend: H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.datasets.reading import ImageBands, choose_bands, read_image
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.plots import Range, colour_errors, colour_ids, find_range, stretch
from cvmh.report.windows import ScoredWindow

NATURAL = ("red", "green", "blue")
# The range of an image is taken from windows on a grid of GRID x GRID, each SAMPLE pixels at most.
GRID, SAMPLE = 4, 256


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowPanels:
    """The pictures (H, W, 3) of one window, to be shown side by side, and what is in them."""

    found: ScoredWindow
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    error: NDArray[np.uint8]


def draw_windows(
    windows: Sequence[ScoredWindow], classes: ClassTable, bands: Sequence[int] | None = None
) -> tuple[WindowPanels, ...]:
    """Draw windows; those of one image are stretched alike.

    Args:
        windows: what to draw.
        classes: for the colours.
        bands: the bands of the images that the network saw, numbered from 1; the first three are
            shown, or red, green and blue where they are among them by name.

    Raises:
        RasterError: an image cannot be read.
    """
    ranges: dict[Path, tuple[ImageBands, Range]] = {}
    drawn = []
    for found in windows:
        path = found.image.image
        with Raster(path) as raster:
            if path not in ranges:
                chosen = choose_bands([path], _shown_bands(raster, bands))
                ranges[path] = chosen, _find_range(raster, chosen)
            chosen, limits = ranges[path]
            pixels, validity = _read(raster, chosen, found.window)
        drawn.append(
            WindowPanels(
                found=found,
                image=_rounded(stretch(pixels, validity, limits), validity),
                label=colour_ids(found.truth_HW, classes),
                mask=colour_ids(found.guess_HW, classes),
                error=colour_errors(found.truth_HW, found.guess_HW),
            )
        )
    return tuple(drawn)


def _shown_bands(raster: Raster, bands: Sequence[int] | None) -> list[int]:
    used = list(bands or choose_bands([Path(raster.path)]).bands)
    names = {raster.band_names[band - 1].lower(): band for band in reversed(used)}
    if all(name in names for name in NATURAL):
        return [names[name] for name in NATURAL]
    return used[:3] if len(used) >= 3 else used[:1]


def _read(
    raster: Raster, chosen: ImageBands, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    pixels, validity = read_image(raster, chosen, window)
    return pixels, validity & np.isfinite(pixels).all(axis=0)


def _rounded(picture_HW3: NDArray[np.uint8], validity_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture of 64 levels, which nobody sees, and which is stored in far less."""
    levels = (picture_HW3 & 0xFC) + np.uint8(2)
    return np.where(validity_HW[..., None], levels, picture_HW3)


def _find_range(raster: Raster, chosen: ImageBands) -> Range:
    parts = [
        _read(raster, chosen, Window(row, column, height, width))
        for row, height in _samples(raster.height)
        for column, width in _samples(raster.width)
    ]
    valid = np.concatenate([pixels[:, validity] for pixels, validity in parts], axis=1)
    return find_range(valid[:, None], np.ones((1, valid.shape[1]), dtype=np.bool_))


def _samples(length: int) -> list[tuple[int, int]]:
    """Return starts and sizes of windows over a length, evenly spread."""
    parts = min(GRID, length)
    size = min(SAMPLE, length // parts)
    return [(length * part // parts, size) for part in range(parts)]
