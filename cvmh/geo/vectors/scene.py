"""The rasters that polygons are made from, and where they lie."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.errors import OutputError, RasterError
from cvmh.geo.georeference import LONGITUDE_LATITUDE
from cvmh.geo.ground import Ground, to_longitude_latitude
from cvmh.geo.legend import clean
from cvmh.geo.raster import Raster
from cvmh.geo.vectors.chunks import check_band
from cvmh.geo.vectors.layers import FORMATS


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What polygons are made from, and where they lie."""

    mask: Raster
    confidence: Raster | None
    classes: ClassTable
    ground: Ground
    crs: Any

    @property
    def names(self) -> NDArray[np.object_]:
        """The name of each class as it stands in the file and its style."""
        return np.array([clean(name) for name in self.classes.names], dtype=object)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates, in the CRS of the file, of points (N, 2) of the lattice."""
        x, y = self.ground.place(points[:, 0], points[:, 1])
        if self.crs != self.ground.crs:
            x, y = to_longitude_latitude(self.ground.crs, x, y)
        return np.stack([x, y], axis=1)


def open_scene(
    stack: ExitStack,
    mask: str | Path,
    confidence: str | Path | None,
    classes: ClassTable,
    path: Path,
) -> Scene:
    """Open the rasters for as long as the stack lasts.

    Raises:
        RasterError: the confidence does not lie on the grid of the mask, or one cannot be read.
        OutputError: the target cannot hold the coordinates of the mask.
    """
    raster = stack.enter_context(Raster(mask))
    ground = Ground(raster.georeference)
    crs = ground.crs
    if FORMATS.get(path.suffix.lower(), ("",))[0] == "GeoJSON":
        if crs is None:
            raise OutputError(
                f"{path.name} would be in longitude and latitude, but mask {raster.path} has no "
                "CRS; choose .gpkg, .fgb or .parquet, which can hold pixel coordinates"
            )
        crs = LONGITUDE_LATITUDE
    sure = None
    if confidence is not None:
        sure = stack.enter_context(Raster(confidence))
        check_band(sure, "a confidence raster")
        if sure.shape != raster.shape:
            raise RasterError(
                f"the confidence must lie on the grid of the mask, {raster.height} x "
                f"{raster.width} pixels, but {sure.path} has {sure.height} x {sure.width}"
            )
    return Scene(mask=raster, confidence=sure, classes=classes, ground=ground, crs=crs)
