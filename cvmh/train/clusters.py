"""Which validation tiles are one cluster of the sample that areas are estimated from.

A cluster is ground that is right and wrong together, so that the sample says as much as it has
clusters, not pixels (see :mod:`cvmh.metrics.areas`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from cvmh.datasets.connecting import connect
from cvmh.geo.footprint import find_box
from cvmh.geo.raster import Raster
from cvmh.metrics.area_sample import ClusterKind

# Enough for a variance, few enough to store.
MOST_CLUSTERS = 32
# With fewer places, their variance is hardly known; with fewer images, neither is theirs.
FEWEST_PLACES = 3
FEWEST_IMAGES = 20
# Images whose centres lie nearer than so many times the longest side of any are one place.
REACH = 2.0


class Clusters(NamedTuple):
    """The cluster of each validation tile, how many there are, and what they are."""

    numbers: tuple[int, ...]
    total: int
    kind: ClusterKind


def assign_clusters(image_numbers: Sequence[int], places: Sequence[int] | None) -> Clusters:
    """Return the cluster of each validation tile.

    Places are best: images side by side show the same fields under the same sun. Where images lie
    nowhere, or all in one or two places, each image is a cluster; and where there are few of them,
    runs of tiles are, row after row. Neighbours in their order are joined to 32 at most.

    Args:
        image_numbers: the image that each tile is of.
        places: the place of each image, if that is known.
    """
    num_tiles, num_images = len(image_numbers), len(set(image_numbers))
    if places is not None and len(set(places)) >= FEWEST_PLACES:
        return _joined([places[number] for number in image_numbers], len(set(places)), "places")
    if num_images >= FEWEST_IMAGES:
        return _joined(image_numbers, num_images, "images")
    return _joined(range(num_tiles), num_tiles, "tiles")


def find_places(paths: Sequence[Path]) -> list[int] | None:
    """Return the place of each image, numbered from 0; None if one lies nowhere on the ground.

    Images are in one place if a chain of neighbours joins them: no two of which are further from
    each other, centre to centre and along each axis, than twice the longest side of any.

    Raises:
        RasterError: an image cannot be opened.
    """
    by_crs: dict[str, list[int]] = {}
    centres = np.zeros((len(paths), 2))
    longest: dict[str, float] = {}
    for number, path in enumerate(paths):
        with Raster(path) as raster:
            if raster.transform.is_identity:
                return None
            crs = raster.crs.to_wkt() if raster.crs else ""
            left, bottom, right, top = find_box(raster)
        by_crs.setdefault(crs, []).append(number)
        centres[number] = (left + right) / 2, (bottom + top) / 2
        longest[crs] = max(longest.get(crs, 0.0), right - left, top - bottom)
    places = np.zeros(len(paths), dtype=np.int64)
    for crs, numbers in by_crs.items():
        # No label is taken twice: there are no more places than images.
        places[numbers] = _chains(centres[numbers], REACH * longest[crs]) + numbers[0] * len(paths)
    # Numbered by their first images.
    order = {place: index for index, place in enumerate(dict.fromkeys(places.tolist()))}
    return [order[place] for place in places.tolist()]


def _chains(centres: NDArray[np.float64], reach: float) -> NDArray[np.int64]:
    pairs = KDTree(centres).query_pairs(reach, p=np.inf, output_type="ndarray")
    return connect(len(centres), pairs)


def _joined(numbers: Sequence[int], count: int, kind: ClusterKind) -> Clusters:
    most = min(MOST_CLUSTERS, count)
    return Clusters(tuple(number * most // count for number in numbers), most, kind)
