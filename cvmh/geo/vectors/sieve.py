"""A mask without its small regions, written beside the polygons while those are made."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.classes import NODATA_ID
from cvmh.geo.ground import Ground
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window
from cvmh.geo.vectors.chunks import Chunk, ChunkGrid, ChunkReader
from cvmh.geo.vectors.merging import Borders, RegionTable, merge_small
from cvmh.geo.vectors.pieces import run_areas
from cvmh.geo.vectors.regions import Regions, find_regions, group

BLOCK = 512
NO_PAIRS = np.empty((0, 3), dtype=np.int64)


class Census:
    """Counts the regions of a mask chunk after chunk, with the borders of those that may be small.

    Memory grows by about 20 bytes a piece of a region and 24 a border, whatever the mask's size.

    Args:
        mask: the open mask.
        ground: where it lies.
        min_area: in m2; borders between pieces that are both at least so large are left out.
    """

    def __init__(self, mask: Raster, ground: Ground, min_area: float) -> None:
        self._width = mask.width
        self._ground = ground
        self._min_area = min_area
        self._tables: list[RegionTable] = []
        self._joins: list[NDArray[np.int64]] = [NO_PAIRS]
        self._borders: list[NDArray[np.int64]] = [NO_PAIRS]
        # The pieces to which the last pixel seen in each column, and in each row, belongs.
        self._above = np.zeros(mask.width, dtype=np.int64)
        self._beside = np.zeros(mask.height, dtype=np.int64)
        self._count = 0
        self.first_pieces: dict[Window, int] = {}

    def add(self, chunk: Chunk) -> None:
        """Count the regions of the next chunk in raster order."""
        regions, window, first = find_regions(chunk.classes), chunk.window, self._count
        self.first_pieces[window] = first
        self._count += len(regions)
        rows, columns = np.divmod(regions.starts[regions.first_runs], window.width)
        table = RegionTable(
            classes=regions.classes,
            areas=regions.total(run_areas(regions, window, self._ground)),
            first_pixels=(rows + window.row) * self._width + columns + window.column,
        )
        self._tables.append(table)
        self._note_inside(regions, table, first)
        pieces, runs = regions.labels.astype(np.int64) + first, regions.runs
        self._note_rim(self._above[window.columns], pieces[runs[0]], chunk.padded[:2, 1:-1])
        self._note_rim(self._beside[window.rows], pieces[runs[:, 0]], chunk.padded[1:-1, :2].T)
        self._above[window.columns] = pieces[runs[-1]]
        self._beside[window.rows] = pieces[runs[:, -1]]

    def decide(self) -> NDArray[np.uint8] | None:
        """Return the new class of each piece, None if all keep theirs."""
        if not self._tables:
            return None
        classes = np.concatenate([table.classes for table in self._tables])
        pieces = RegionTable(
            classes=classes,
            areas=np.concatenate([table.areas for table in self._tables]),
            first_pixels=np.concatenate([table.first_pixels for table in self._tables]),
        )
        one, other, _ = np.concatenate(self._joins).T
        numbers = group(self._count, one, other)
        one, other, lengths = np.concatenate(self._borders).T
        borders = Borders(one=numbers[one], other=numbers[other], lengths=lengths)
        table = pieces.grouped(numbers, classes)
        new_classes = merge_small(table, borders, self._min_area)[numbers]
        return None if (new_classes == classes).all() else new_classes

    def _note_inside(self, regions: Regions, table: RegionTable, first: int) -> None:
        """Note the borders inside a chunk of those pieces that may belong to small regions."""
        runs, labels = regions.runs, regions.labels
        level, upright = runs[:-1] != runs[1:], runs[:, :-1] != runs[:, 1:]
        one = labels[np.concatenate([runs[:-1][level], runs[:, :-1][upright]])]
        other = labels[np.concatenate([runs[1:][level], runs[:, 1:][upright]])]
        may_be_small = table.areas < self._min_area
        is_data = table.classes != NODATA_ID
        is_noted = (one != other) & (may_be_small[one] | may_be_small[other])
        is_noted &= is_data[one] & is_data[other]
        pairs = _count_pairs(one[is_noted].astype(np.int64), other[is_noted].astype(np.int64))
        self._borders.append(pairs + np.array([first, first, 0]))

    def _note_rim(
        self, theirs: NDArray[np.int64], ours: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> None:
        is_data = (classes != NODATA_ID).all(axis=0)
        is_same = classes[0] == classes[1]
        joined, apart = is_data & is_same, is_data & ~is_same
        self._joins.append(_count_pairs(theirs[joined], ours[joined]))
        self._borders.append(_count_pairs(theirs[apart], ours[apart]))


def _count_pairs(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (pairs, 3): the pairs that occur, and how often."""
    if not len(one):
        return NO_PAIRS
    base = int(other.max()) + 1
    pairs, counts = np.unique(one * base + other, return_counts=True)
    return np.stack([pairs // base, pairs % base, counts], axis=1)


def write_sieved(
    path: Path, mask: Raster, reader: ChunkReader, grid: ChunkGrid, census: Census
) -> bool:
    """Write the mask with its small regions merged; return False if there are none."""
    new_classes = census.decide()
    if new_classes is None:
        return False
    profile = {
        "driver": "GTiff",
        "height": mask.height,
        "width": mask.width,
        "count": 1,
        "dtype": "uint8",
        "nodata": NODATA_ID,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,
    }
    with warnings.catch_warnings():
        # It is read back at once, by those who know where it lies.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            for window in (window for row in grid.rows() for window in row):
                chunk = reader.read(window)
                if chunk is None:
                    continue
                regions = find_regions(chunk.classes)
                first = census.first_pieces[window]
                classes = new_classes[first : first + len(regions)]
                dataset.write(
                    classes[regions.labels][regions.runs],
                    1,
                    window=RasterioWindow(window.column, window.row, window.width, window.height),
                )
    return True
