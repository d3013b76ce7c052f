"""What one chunk of a mask contributes: whole regions, and pieces of regions that go on."""

from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.ground import Ground
from cvmh.geo.tiling import Window
from cvmh.geo.vectors.chunks import Chunk
from cvmh.geo.vectors.lattice import Lattice
from cvmh.geo.vectors.measures import Measures
from cvmh.geo.vectors.outlines import trace
from cvmh.geo.vectors.regions import Regions, find_regions
from cvmh.geo.vectors.seams import NOBODY, Rims

# GEOS cuts off a corner if its area is below the square of the tolerance. The stairs of a border
# that rises one pixel in n have corners of n / 2, so that twice the pixels asked for make lines of
# all but the flattest stairs, while 95 of 100 outlines move by less than twice what was asked for.
CORNERS = 2.0


class Pieces(NamedTuple):
    """The regions of a chunk that lie inside it, and those that touch its rim."""

    inner: NDArray[Any]
    inner_measures: Measures
    outer: NDArray[Any]
    outer_measures: Measures
    rims: Rims


def cut_out(
    chunk: Chunk,
    lattice: Lattice,
    ground: Ground,
    *,
    simplify: float,
    confidence: NDArray[np.uint8] | None,
) -> Pieces:
    """Return the polygons of a chunk in lattice coordinates.

    Args:
        chunk: the chunk.
        lattice: its vertices.
        ground: where the mask lies.
        simplify: about how far, in pixels, borders may move; 0 keeps every corner.
        confidence: (H, W) of the chunk, 255 where unknown; None if there is none.
    """
    regions = find_regions(chunk.classes)
    polygons = trace(lattice, regions, row=chunk.window.row, column=chunk.window.column)
    if simplify > 0:
        # The rim stays as it is, and so do the points where borders reach it: the chunk on the
        # other side keeps the same.
        polygons = shapely.coverage_simplify(polygons, CORNERS * simplify, simplify_boundary=False)
    measures = _measure(regions, chunk.window, ground, confidence)
    is_data = regions.classes != NODATA_ID
    sides = (
        regions.labels[side]
        for side in (regions.runs[0], regions.runs[-1], regions.runs[:, 0], regions.runs[:, -1])
    )
    top, bottom, left, right = sides
    is_outer = np.zeros(len(regions), dtype=bool)
    is_outer[np.concatenate([top, bottom, left, right])] = True
    outer = np.flatnonzero(is_outer & is_data)
    inner = np.flatnonzero(~is_outer & is_data)
    number_of = np.full(len(regions), NOBODY)
    number_of[outer] = np.arange(len(outer))
    rims = Rims(
        top=number_of[top], bottom=number_of[bottom], left=number_of[left], right=number_of[right]
    )
    return Pieces(
        polygons[inner], measures.take(inner), polygons[outer], measures.take(outer), rims
    )


def _measure(
    regions: Regions, window: Window, ground: Ground, confidence: NDArray[np.uint8] | None
) -> Measures:
    sums = counts = np.zeros(len(regions))
    if confidence is not None:
        is_known = confidence != NODATA_ID
        sums = regions.total(regions.sum_pixels(np.where(is_known, confidence, 0)))
        counts = regions.total(regions.sum_pixels(is_known))
    return Measures(
        classes=regions.classes,
        areas=regions.total(run_areas(regions, window, ground)),
        confidences=sums.astype(np.int64),
        num_confident=counts.astype(np.int64),
    )


def run_areas(regions: Regions, window: Window, ground: Ground) -> NDArray[np.float64]:
    """Return the area in m2 of each run of a chunk, NaN if unknown."""
    rows, columns = np.divmod(regions.starts, regions.runs.shape[1])
    lengths = regions.lengths
    middles = window.column + columns + lengths / 2
    return lengths * ground.pixel_areas(window.row + rows + 0.5, middles)
