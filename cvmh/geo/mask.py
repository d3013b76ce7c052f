"""Writing a mask: class ids on the exact grid of their scene, complete or not there at all."""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.errors import OutputError
from cvmh.geo.intact import check_blocks
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.raster import Raster
from cvmh.version import VERSION

# Side of the blocks of a mask; a mask that fits in one block gets no overviews.
BLOCK = 512
SUFFIXES = (".tif", ".tiff")
# What an older mask of the same name may have left beside it; "{}" is the mask's name.
SIDECARS = ("{}.aux.xml", "{}.ovr", "{}.msk", "{}.vat.dbf")


class MaskWriter:
    """Writes a mask row by row, from top to bottom, and shows it only when it is whole.

    A context manager: on leaving it without an error the mask is turned into a cloud-optimised
    GeoTIFF with nearest-neighbour overviews, checked, and renamed to its name; on any error
    nothing is left behind. Only rows of one block height are held in memory.

    Args:
        path: the mask, ``.tif`` or ``.tiff``.
        scene: the open scene; size and georeference are taken over from it.
        classes: gives the colour table and the tags.
        tags: more tags, for example the model and the command line; names get the prefix CVMH_.
        overwrite: whether an existing mask may be replaced.

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
    ) -> None:
        self.path = Path(path)
        check_output(self.path, scene, overwrite=overwrite)
        self._height, self._width = scene.height, scene.width
        self._profile = _profile(scene)
        self._classes = classes
        self._tags = _tags(classes, tags or {})
        self._next_row = 0
        self._pending = np.empty((0, self._width), dtype=np.uint8)

    def __enter__(self) -> Self:
        with self._explained():
            self._folder = Path(
                tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
            )
        try:
            with self._explained(), _quiet():
                self._dataset = rasterio.open(self._folder / "rows.tif", "w", **self._profile)
                # A GeoTIFF takes its colour table only before its first pixel.
                self._dataset.write_colormap(1, _colour_table(self._classes))
                self._dataset.update_tags(**self._tags)
                self._dataset.set_band_description(1, "class")
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write_rows(self, rows: NDArray[np.uint8]) -> None:
        """Append the next rows, (rows, width) of class ids, 255 where there is no data.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._pending = np.concatenate([self._pending, rows])
        # Whole rows of blocks only: a block that is written twice would be stored twice.
        whole = len(self._pending) // BLOCK * BLOCK
        self._flush(whole)

    def _flush(self, count: int) -> None:
        if not count:
            return
        window = RasterioWindow(0, self._next_row, self._width, count)
        with self._explained():
            self._dataset.write(self._pending[:count], 1, window=window)
        self._next_row += count
        self._pending = self._pending[count:]

    def _finish(self) -> None:
        self._flush(len(self._pending))
        assert self._next_row == self._height, "every row of a mask must be written"
        rows, whole = self._folder / "rows.tif", self._folder / "whole.tif"
        with self._explained(), _quiet():
            self._dataset.close()
            check_blocks(rows)
            rasterio.shutil.copy(
                rows,
                whole,
                driver="COG",
                blocksize=BLOCK,
                compress="DEFLATE",
                overview_resampling="NEAREST",
                bigtiff="IF_SAFER",
            )
            check_blocks(whole)
            _sync(whole)
            for stale in sidecars(self.path):
                stale.unlink(missing_ok=True)
            # A CRS that GeoTIFF keys cannot express is kept by GDAL in an .aux.xml.
            for sidecar in self._folder.glob("whole.tif.*"):
                sidecar.replace(
                    self.path.with_name(sidecar.name.replace("whole.tif", self.path.name))
                )
            whole.replace(self.path)
            _sync(self.path.parent)

    def _discard(self) -> None:
        dataset = getattr(self, "_dataset", None)
        if dataset is not None and not dataset.closed:
            try:
                dataset.close()
            except GDAL_ERRORS:
                # The file is thrown away; why it failed is already on its way up.
                pass
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except GDAL_ERRORS as error:
            raise OutputError(_why_not_written(self.path, error)) from error


def check_output(path: Path, scene: Raster, *, overwrite: bool) -> None:
    """Refuse a mask that could not or should not be written, before any work is done.

    Raises:
        OutputError: the name is not that of a GeoTIFF, the folder is missing, the mask exists,
            or it would replace a file that the scene is read from.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"a mask is a GeoTIFF, so its name must end in .tif or .tiff, got {path}")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of mask {path.name} does not exist; create it")
    if not path.exists():
        return
    if not path.is_file():
        raise OutputError(f"mask {path} is a folder; name a file")
    if any(source.exists() and source.samefile(path) for source in scene.files):
        raise OutputError(f"mask {path} would replace its own scene; choose another name")
    if not overwrite:
        raise OutputError(f"mask {path} exists; choose another name or add --overwrite")


def sidecars(path: Path) -> list[Path]:
    """Return the files that GDAL and QGIS read along with a mask, whether they exist or not."""
    named = [path.with_name(pattern.format(path.name)) for pattern in SIDECARS]
    return [*named, path.with_suffix(".qml")]


def _profile(scene: Raster) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "height": scene.height,
        "width": scene.width,
        "count": 1,
        "dtype": "uint8",
        "nodata": NODATA_ID,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        # This file is read once, to become the mask; class ids have no slope for a predictor.
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
        **scene.georeference.profile(),
    }


def _tags(classes: ClassTable, tags: Mapping[str, str]) -> dict[str, str]:
    given = {f"CVMH_{name.upper()}": value for name, value in tags.items()}
    return {"CVMH_VERSION": VERSION, "CVMH_CLASSES": json.dumps(classes.to_json()), **given}


def _colour_table(classes: ClassTable) -> dict[int, tuple[int, int, int, int]]:
    return {**{c.id: (*c.rgb, 255) for c in classes}, NODATA_ID: (0, 0, 0, 0)}


def _why_not_written(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error.__cause__ or error)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return f"mask {path} cannot be written ({reason})"
    return (
        f"mask {path} cannot be written ({reason}); {free / 2**20:.0f} MiB are free there: "
        "is the disk full, a quota used up, or the folder not yours to write?"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk; folders cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
