"""How well class borders are met: boundary IoU and boundary F1, as integer counts.

Two scores of the outline of each class, both at a width in pixels, by Euclidean distance between
the centres of pixels:

* boundary IoU (Cheng et al., Boundary IoU, CVPR 2021): of the pixels of a class, only those count
  that lie within the width of a pixel of another class; IoU of these bands of label and mask.
* boundary F1 (Csurka et al., BMVC 2013): of the outline of a class, the pixels that touch another
  class; the share of the mask's outline that lies within the width of the label's outline of that
  class is the precision, the other way round the recall.

A pixel that does not count (255) is neither inside nor outside of any class: the rim of an ignored
region is no outline, and neither is the rim of the scene. Csurka et al. average over images and
Cheng et al. take the rim of the image as an outline; here counts of all scenes are added, because
a scene's rim is where somebody cut it.

Legend: H rows, W columns, K classes.
"""

import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.errors import ConfigError
from cvmh.metrics.ratios import mean_of_known, ratio

# The columns of the counts, a row a class: pixels of the bands of label and mask and of both, and
# pixels of the outlines of label and mask and those of them that the other one comes near.
BAND_LABEL, BAND_MASK, BAND_BOTH, LABEL, LABEL_MET, MASK, MASK_MET = range(7)
BoundaryCounts = NDArray[np.int64]
# The most classes that one word of bits holds.
BITS = 64
WIDEST = 100


class BoundaryClassScore(BaseModel):
    """The boundary scores of one class, each 0..1; none where the class has no outline."""

    model_config = ConfigDict(frozen=True)

    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None


class BoundaryScores(BaseModel):
    """The boundary scores of a split at one width.

    ``width`` is in pixels, ``metres`` the same on the ground where that is known. The means are
    over the classes that have a score and are not left out by the protocol.
    """

    model_config = ConfigDict(frozen=True)

    width: int
    metres: float | None
    miou: float | None
    mf1: float | None
    classes: dict[str, BoundaryClassScore]


def check_width(width: int) -> int:
    """Return a width, if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not 1 <= width <= WIDEST:
        raise ConfigError(
            f"the width of boundaries must be 1 to {WIDEST} pixels, got {width}; 3 is common"
        )
    return width


def halo_of(width: int) -> int:
    """Return how many rows beyond a strip its counts depend on."""
    return width + 1


def near_other_class(ids_HW: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """Return where a pixel of another class lies within a radius (H, W), in pixels.

    A pixel that does not count (255) is near nothing, and nothing is near to it.
    """
    is_known = ids_HW != NODATA_ID
    # 0 and 255 are what the largest and the smallest id nearby never choose over a class.
    largest = _over_disc(np.where(is_known, ids_HW + np.uint8(1), np.uint8(0)), radius, np.maximum)
    smallest = _over_disc(ids_HW, radius, np.minimum)
    return is_known & ((largest != ids_HW + np.uint8(1)) | (smallest != ids_HW))


def count_boundaries(
    labels_HW: NDArray[np.uint8],
    predictions_HW: NDArray[np.uint8],
    num_classes: int,
    *,
    width: int,
    core: slice = slice(None),
) -> BoundaryCounts:
    """Count the pixels of bands and outlines in the rows ``core`` of two id arrays.

    With :func:`halo_of` rows above and below the core, unless the scene ends there, the counts of
    the strips of a scene add up to those of the whole scene.

    Args:
        labels_HW: class ids, 255 where no label counts.
        predictions_HW: class ids; where the label is 255 they do not count either.
        num_classes: K.
        width: how far a border may be off, in pixels.
        core: the rows that are counted.

    Returns:
        (K, 7) counts, the columns named at the top of this file.
    """
    masks_HW = np.where(labels_HW == NODATA_ID, np.uint8(NODATA_ID), predictions_HW)
    band_label, band_mask = (near_other_class(ids, width)[core] for ids in (labels_HW, masks_HW))
    edge_label, edge_mask = (near_other_class(ids, 1) for ids in (labels_HW, masks_HW))
    label, mask = labels_HW[core], masks_HW[core]
    counts = np.zeros((num_classes, 7), dtype=np.int64)
    counts[:, BAND_LABEL] = _per_class(label, band_label, num_classes)
    counts[:, BAND_MASK] = _per_class(mask, band_mask, num_classes)
    both = band_label & band_mask & (label == mask)
    counts[:, BAND_BOTH] = _per_class(label, both, num_classes)
    counts[:, LABEL] = _per_class(label, edge_label[core], num_classes)
    counts[:, MASK] = _per_class(mask, edge_mask[core], num_classes)
    met_label = _is_met(labels_HW, edge_label, masks_HW, edge_mask, width, num_classes)[core]
    met_mask = _is_met(masks_HW, edge_mask, labels_HW, edge_label, width, num_classes)[core]
    counts[:, LABEL_MET] = _per_class(label, met_label, num_classes)
    counts[:, MASK_MET] = _per_class(mask, met_mask, num_classes)
    return counts


def score_boundaries(
    counts: BoundaryCounts,
    classes: ClassTable,
    *,
    width: int,
    gsd: float | None = None,
    left_out: Collection[str] = (),
) -> BoundaryScores:
    """Turn the counts of all scenes into scores.

    Args:
        counts: (K, 7), of :func:`count_boundaries`.
        classes: the class table, for the names.
        width: what was counted with, in pixels.
        gsd: metres a pixel, if known.
        left_out: names of classes that the means leave out.
    """
    rows = {name: _row(counts[i]) for i, name in enumerate(classes.names)}
    chosen = [row for name, row in rows.items() if name not in left_out]
    return BoundaryScores(
        width=width,
        metres=None if gsd is None else width * gsd,
        miou=mean_of_known(row.iou for row in chosen),
        mf1=mean_of_known(row.f1 for row in chosen),
        classes=rows,
    )


def _row(counts: NDArray[np.int64]) -> BoundaryClassScore:
    union = counts[BAND_LABEL] + counts[BAND_MASK] - counts[BAND_BOTH]
    precision = ratio(counts[MASK_MET], counts[MASK])
    recall = ratio(counts[LABEL_MET], counts[LABEL])
    f1 = None
    if counts[LABEL] or counts[MASK]:
        found = (precision or 0.0) + (recall or 0.0)
        f1 = 2 * (precision or 0.0) * (recall or 0.0) / found if found else 0.0
    return BoundaryClassScore(
        iou=ratio(counts[BAND_BOTH], union), f1=f1, precision=precision, recall=recall
    )


def _per_class(
    ids_HW: NDArray[np.uint8], chosen_HW: NDArray[np.bool_], num_classes: int
) -> NDArray[np.int64]:
    return np.bincount(ids_HW[chosen_HW], minlength=num_classes)[:num_classes]


def _is_met(
    ids_HW: NDArray[np.uint8],
    edge_HW: NDArray[np.bool_],
    other_ids_HW: NDArray[np.uint8],
    other_edge_HW: NDArray[np.bool_],
    width: int,
    num_classes: int,
) -> NDArray[np.bool_]:
    """Return where an outline has the other's outline of its own class within the width."""
    is_met = np.zeros(ids_HW.shape, dtype=bool)
    for first in range(0, num_classes, BITS):
        count = min(BITS, num_classes - first)
        near = _over_disc(_bits(other_ids_HW, other_edge_HW, first, count), width, np.bitwise_or)
        is_met |= (near & _bits(ids_HW, edge_HW, first, count)) != 0
    return is_met


def _bits(
    ids_HW: NDArray[np.uint8], chosen_HW: NDArray[np.bool_], first: int, count: int
) -> NDArray[Any]:
    """Return words with the bit of the class, so that all classes are looked at in one pass."""
    table = np.zeros(NODATA_ID + 1, dtype=np.uint64)
    table[first : first + count] = np.uint64(1) << np.arange(count, dtype=np.uint64)
    # The shortest word that holds them: there are many pixels.
    words = table.astype(f"uint{next(bits for bits in (8, 16, 32, 64) if bits >= count)}")
    return np.where(chosen_HW, words[ids_HW], words.dtype.type(0))


def _over_disc(values_HW: NDArray[Any], radius: int, combine: np.ufunc) -> NDArray[Any]:
    """Return the combination of all values within a radius of each pixel (H, W).

    Rows of the disc are combined from left to right first, so that a radius of r takes some 4 r
    passes over the array and not 3 r^2.
    """
    result = values_HW.copy()
    for half_width, row_HW in _rows_of_disc(values_HW, radius, combine):
        for shift in range(1, radius + 1):
            if math.isqrt(radius**2 - shift**2) == half_width:
                combine(result[shift:], row_HW[:-shift], out=result[shift:])
                combine(result[:-shift], row_HW[shift:], out=result[:-shift])
        if half_width == radius:
            combine(result, row_HW, out=result)
    return result


def _rows_of_disc(
    values_HW: NDArray[Any], radius: int, combine: np.ufunc
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the values combined over rows of 1, 3, 5 ... pixels, by half their length."""
    row_HW = values_HW.copy()
    yield 0, row_HW
    for shift in range(1, radius + 1):
        combine(row_HW[:, shift:], values_HW[:, :-shift], out=row_HW[:, shift:])
        combine(row_HW[:, :-shift], values_HW[:, shift:], out=row_HW[:, :-shift])
        yield shift, row_HW
