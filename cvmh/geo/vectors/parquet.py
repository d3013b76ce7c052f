"""GeoParquet 1.1, by pyarrow, which is only imported where it is needed."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import shapely

from cvmh.errors import OutputError
from cvmh.geo.vectors.layers import Batch


def import_pyarrow() -> tuple[ModuleType, ModuleType]:
    """Return pyarrow and pyarrow.parquet.

    Raises:
        OutputError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OutputError(
            "writing .parquet needs pyarrow, which is not installed; "
            "run pip install 'cvmh[parquet]' or choose .gpkg"
        ) from error
    return pyarrow, pyarrow.parquet


class ParquetLayer:
    """A layer of polygons in a GeoParquet file.

    Args:
        path: the file to make.
        crs: a rasterio CRS, or None.
        tags: kept as metadata of the file.
        has_confidence: whether there is a column of confidences.
    """

    def __init__(
        self, path: Path, *, crs: Any, tags: Mapping[str, str], has_confidence: bool
    ) -> None:
        self._arrow, parquet = import_pyarrow()
        arrow = self._arrow
        fields = [
            ("geometry", arrow.binary()),
            ("class_id", arrow.int32()),
            ("class", arrow.string()),
            ("area_m2", arrow.float64()),
        ]
        fields += [("confidence", arrow.float64())] if has_confidence else []
        self._schema = arrow.schema(fields)
        self._tags = dict(tags)
        self._crs = crs.to_dict(projjson=True) if crs is not None else None
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        # Readers take the metadata of a stored Arrow schema for that of the file, but the bounds
        # are only known, and added, at the end.
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", store_schema=False
        )

    def append(self, batch: Batch) -> None:
        """Write some polygons."""
        if not len(batch.polygons):
            return
        left, bottom, right, top = shapely.total_bounds(batch.polygons)
        self._bounds[:2] = np.minimum(self._bounds[:2], [left, bottom])
        self._bounds[2:] = np.maximum(self._bounds[2:], [right, top])
        columns = {"geometry": shapely.to_wkb(batch.polygons), **batch.columns()}
        arrays = [
            self._arrow.array(column, type=self._schema.field(name).type, from_pandas=True)
            for name, column in columns.items()
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def finish(self) -> None:
        """Write the end of the file, which says where the polygons lie."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": self._crs,
            "orientation": "counterclockwise",
        }
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        self._writer.add_key_value_metadata({**self._tags, "geo": json.dumps(geo)})
        self._writer.close()
