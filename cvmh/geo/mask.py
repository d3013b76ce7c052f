"""Writing a mask: class ids on the exact grid of their scene, with a legend."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.geo.legend import colour_table, write_legend
from cvmh.geo.raster import Raster
from cvmh.geo.writer import GridWriter


class MaskWriter(GridWriter):
    """Writes a mask row by row, from top to bottom, and shows it only when it is whole.

    A :class:`GridWriter` of one uint8 band with nearest-neighbour overviews and a colour table;
    ``.aux.xml`` and ``.qml`` beside the mask name the classes for GDAL and QGIS.

    Args:
        path: the mask, ``.tif`` or ``.tiff``.
        scene: the open scene; size and georeference are taken over from it.
        classes: gives the colour table, the legend and the tags.
        tags: more tags, for example the model and the command line; names get the prefix CVMH_.
        overwrite: whether an existing mask may be replaced.
        folder: an existing folder for the intermediate files; see :class:`GridWriter`.

    Raises:
        OutputError: the mask exists, would replace its own scene, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        scene: Raster,
        classes: ClassTable,
        *,
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(
            path,
            scene,
            band_names=["class"],
            nodata=NODATA_ID,
            colours=colour_table(classes),
            overviews="nearest",
            tags={"classes": json.dumps(classes.to_json()), **(tags or {})},
            overwrite=overwrite,
            folder=folder,
        )
        self._classes = classes
        self._counts = np.zeros(NODATA_ID + 1, dtype=np.int64)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Number of pixels so far by id, 0..255."""
        return self._counts.copy()

    def write_rows(self, rows: NDArray[np.uint8]) -> None:
        """Append the next rows, (rows, width) of class ids, 255 where there is no data.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        # A comparison a class is several times as fast as a histogram, and makes no copy.
        counts = [int(np.count_nonzero(rows == number)) for number in range(len(self._classes))]
        self._counts[: len(counts)] += counts
        self._counts[NODATA_ID] += rows.size - sum(counts)
        super().write_rows(rows)

    def skip_rows(self, count: int) -> None:
        """Append rows without any data; those that fill whole blocks cost nothing.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._counts[NODATA_ID] += count * self._shape[2]
        super().skip_rows(count)

    def add_sidecars(self, made: Path) -> None:
        """Write the legend."""
        write_legend(made, self._classes, self._counts.tolist())
