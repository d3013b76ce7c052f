"""Pictures from arrays: scenes, labels and masks in colours that tell something."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.files import write_complete

# Shown where there is no data: a light grey that no class table is likely to use.
NODATA_COLOUR = (235, 235, 235)
# Far apart in lightness too, so that they differ for everybody, and on grey paper.
RIGHT_COLOUR, WRONG_COLOUR = (186, 190, 196), (190, 20, 30)
# Pixels from line to line where nothing counts.
HATCH = 8


def colour_ids(ids: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.uint8]:
    """Return the colours (H, W, 3) of an array (H, W) of class ids; 255 becomes light grey."""
    palette = np.full((NODATA_ID + 1, 3), NODATA_COLOUR, dtype=np.uint8)
    palette[: len(classes)] = classes.colours
    return palette[ids]


def colour_errors(labels: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3): grey where right, red where wrong, hatched where not counted.

    Args:
        labels: (H, W) class ids; 255 does not count.
        ids: (H, W) predicted class ids.
    """
    row, column = np.indices(labels.shape)
    is_line = (row + column) % HATCH < HATCH // 4
    kinds = np.where(labels == ids, 0, 1)
    kinds[labels == NODATA_ID] = 2
    # Lines of the colour of what is right, on that of no data.
    kinds[(labels == NODATA_ID) & is_line] = 0
    return np.array((RIGHT_COLOUR, WRONG_COLOUR, NODATA_COLOUR), dtype=np.uint8)[kinds]


class Range(NamedTuple):
    """The values of an image that a picture shows as black and as white."""

    low: float
    high: float


def find_range(image: NDArray[Any], validity: NDArray[np.bool_]) -> Range:
    """Return the 2nd and 98th percentile of the valid pixels of the bands that are shown.

    Args:
        image: (bands, H, W), any number type.
        validity: (H, W), true where valid.
    """
    values = _shown(image)[:, validity].astype(np.float64)
    return Range(*np.percentile(values, (2, 98))) if values.size else Range(0.0, 1.0)


def stretch(
    image: NDArray[Any], validity: NDArray[np.bool_], limits: Range | None = None
) -> NDArray[np.uint8]:
    """Return the first three bands (or the only one) as a picture (H, W, 3).

    Args:
        image: (bands, H, W), any number type.
        validity: (H, W), true where valid; elsewhere the picture is light grey.
        limits: what becomes black and white, one range for all bands, so that colours stay true;
            default :func:`find_range` of this image.
    """
    low, high = limits or find_range(image, validity)
    shown = np.where(validity, _shown(image).astype(np.float64), low)
    scaled = (shown - low) / max(high - low, 1e-12)
    picture = (np.clip(scaled, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    picture[~validity] = NODATA_COLOUR
    return picture


def preview(
    path: Path, panels: Mapping[str, NDArray[np.uint8]], classes: ClassTable, *, title: str = ""
) -> None:
    """Write pictures (H, W, 3) side by side with a legend of the classes, as PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = Figure(figsize=(4.4 * len(panels), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [_swatch(entry.name, entry.rgb) for entry in classes]
    handles.append(_swatch("no data", NODATA_COLOUR))
    # Three names fit under one panel; more would be cut off at the sides.
    columns = min(len(handles), 3 * len(panels), 7)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    write_complete(path, drawn.getvalue())


def _swatch(name: str, rgb: tuple[int, int, int]) -> Patch:
    red, green, blue = (part / 255 for part in rgb)
    return Patch(facecolor=(red, green, blue), edgecolor="0.4", linewidth=0.5, label=name)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    return image[:3] if len(image) >= 3 else image[[0, 0, 0]]
