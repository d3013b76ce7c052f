"""Files of polygons: GeoPackage, FlatGeobuf and GeoJSON through GDAL, batch after batch.

GDAL can append to a GeoPackage, but neither to a FlatGeobuf nor, within bounded memory, to a
GeoJSON. So batches go to a plain GeoPackage first, which is then streamed into the real file; that
also builds the spatial index in one go.
"""

import datetime
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.geo.vectors.style import write_qml

GEOMETRY = "geom"
# Polygons are streamed so many at a time; GDAL would hold 65,536 of them.
STREAMED = 4096
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    # The newest version that no GDAL of the last years warns of.
    ".gpkg": ("GPKG", {"VERSION": "1.3"}),
    ".fgb": ("FlatGeobuf", {}),
    # Nine decimals of a degree are a tenth of a millimetre: no border moves visibly.
    ".geojson": ("GeoJSON", {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}),
    ".json": ("GeoJSON", {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}),
}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some polygons with their attributes; ``confidences`` is None where none were computed."""

    polygons: NDArray[Any]
    class_ids: NDArray[np.int32]
    names: NDArray[np.object_]
    areas: NDArray[np.float64]
    confidences: NDArray[np.float64] | None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the attributes by name, in their order in the file."""
        columns: dict[str, NDArray[Any]] = {
            "class_id": self.class_ids,
            "class": self.names,
            "area_m2": self.areas,
        }
        return columns if self.confidences is None else {**columns, "confidence": self.confidences}


class GdalLayer:
    """A layer of polygons that is written by GDAL.

    Args:
        path: the file to make; its suffix chooses the format.
        name: of the layer.
        crs: WKT, or None.
        tags: kept as metadata where the format has any.
        classes: what the style of a GeoPackage shows.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        crs: str | None,
        tags: Mapping[str, str],
        classes: ClassTable,
    ) -> None:
        self._path, self._name, self._crs = path, name, crs
        self._tags, self._classes = dict(tags), classes
        self._spool = path.with_name("spool.gpkg")

    def append(self, batch: Batch) -> None:
        """Write some polygons."""
        columns = batch.columns()
        with _without_crs_warning():
            pyogrio.raw.write(
                self._spool,
                shapely.to_wkb(batch.polygons),
                list(columns.values()),
                np.array(list(columns), dtype=object),
                layer=self._name,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._crs,
                encoding="UTF-8",
                append=self._spool.exists(),
                **({} if self._spool.exists() else {"SPATIAL_INDEX": "NO"}),
            )

    def finish(self) -> None:
        """Make the file itself."""
        driver, options = FORMATS[self._path.suffix.lower()]
        if driver == "FlatGeobuf":
            options = {"TEMPORARY_DIR": str(self._path.parent)}
        with (
            _without_crs_warning(),
            pyogrio.raw.open_arrow(self._spool, layer=self._name, batch_size=STREAMED) as (
                _,
                features,
            ),
        ):
            pyogrio.raw.write_arrow(
                features,
                self._path,
                layer=self._name,
                driver=driver,
                geometry_name=GEOMETRY,
                geometry_type="Polygon",
                crs=self._crs,
                encoding="UTF-8",
                dataset_metadata=self._tags if driver == "GPKG" else None,
                **options,
            )
        self._spool.unlink()
        if driver == "GPKG":
            self._add_style()

    def _add_style(self) -> None:
        """Add the table in which QGIS looks for the style of a layer when it opens one."""
        now = np.array([datetime.datetime.now(datetime.UTC).replace(tzinfo=None)], "datetime64[ms]")
        texts = {
            "f_table_catalog": "",
            "f_table_schema": "",
            "f_table_name": self._name,
            "f_geometry_column": GEOMETRY,
            "styleName": self._name,
            "styleQML": write_qml(self._classes),
            "styleSLD": "",
            "description": "classes of the mask",
            "owner": "",
            "ui": "",
        }
        columns: dict[str, NDArray[Any]] = {
            name: np.array([text], dtype=object) for name, text in texts.items()
        }
        columns |= {"useAsDefault": np.array([True]), "update_time": now}
        with _without_crs_warning():
            pyogrio.raw.write(
                self._path,
                None,
                list(columns.values()),
                np.array(list(columns), dtype=object),
                layer="layer_styles",
                driver="GPKG",
                encoding="UTF-8",
                append=True,
            )


@contextmanager
def _without_crs_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        # A photo has no CRS.
        warnings.filterwarnings("ignore", "'crs' was not provided")
        yield
