"""Writing rasters on the exact grid of a scene: row by row, complete or not there at all."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from cvmh.geo.cog import Overviews, make_cog
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.output import check_output, explained, publish
from cvmh.geo.raster import Raster, bounded_cache
from cvmh.geo.strips import Strips
from cvmh.version import VERSION


class GridWriter:
    """Writes a raster row by row, from top to bottom, and shows it only when it is whole.

    A context manager: on leaving it without an error the raster is turned into a cloud-optimised
    GeoTIFF with overviews, checked, and renamed to its name; on any error nothing is left
    behind. Memory is that of one row of blocks and of GDAL's cache; blocks without any data are
    not stored at all. The same rows give the same bytes.

    Args:
        path: the raster, ``.tif`` or ``.tiff``.
        scene: the open scene; size and georeference are taken over from it.
        band_names: one a band, kept as descriptions.
        nodata: the value of pixels without data, in all bands; may be NaN.
        dtype: that of the rows, any of GDAL's or "float16".
        scale: what a value must be multiplied with, kept for GDAL; values stay as they come.
        colours: colour table {value: (red, green, blue, alpha)} of a single uint8 band.
        overviews: "nearest" for values that are names, "average" for quantities.
        tags: tags, for example the model and the command line; names get the prefix CVMH_.
        overwrite: whether an existing file may be replaced.
        folder: an existing folder for the intermediate files, on the disk of ``path``; what a
            killed run left there under the same name is removed. Default a new one beside it.

    Raises:
        OutputError: the file exists, would replace its own scene, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        scene: Raster,
        *,
        band_names: Sequence[str],
        nodata: float,
        dtype: str = "uint8",
        scale: float | None = None,
        colours: Mapping[int, tuple[int, int, int, int]] | None = None,
        overviews: Overviews = "average",
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.path = Path(path)
        check_output(self.path, scene, overwrite=overwrite)
        self._shape = len(band_names), scene.height, scene.width
        self._pixels: dict[str, Any] = {"dtype": dtype, "nodata": nodata}
        self._georeference = scene.georeference.profile()
        self._band_names, self._scale, self._colours = tuple(band_names), scale, colours
        self._tags = {"CVMH_VERSION": VERSION}
        self._tags |= {f"CVMH_{name.upper()}": value for name, value in (tags or {}).items()}
        self._overviews, self._keep_in = overviews, folder
        self._strips: Strips | None = None

    def __enter__(self) -> Self:
        with explained(self.path):
            self._folder = self._make_folder()
        try:
            with explained(self.path), _quiet(), bounded_cache():
                self._strips = self._begin(self._folder / "rows.tif")
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
                with explained(self.path), _quiet(), bounded_cache():
                    self._finish()
        finally:
            self._discard()

    def write_rows(self, rows: NDArray[Any]) -> None:
        """Append the next rows, (rows, width) or (bands, rows, width).

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._append(rows[None] if rows.ndim == 2 else rows, rows.shape[-2])

    def skip_rows(self, count: int) -> None:
        """Append rows without any data; those that fill whole blocks cost nothing.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        self._append(None, count)

    def add_sidecars(self, made: Path) -> None:
        """Write what shall lie beside the finished raster beside ``made``, its name until then."""

    def _append(self, rows: NDArray[Any] | None, count: int) -> None:
        assert self._strips is not None, "a raster is written inside its with block"
        with explained(self.path), bounded_cache():
            self._strips.append(rows, count)

    def _begin(self, path: Path) -> Strips:
        strips = Strips(path, self._shape, **self._pixels, georeference=self._georeference)
        dataset = strips.dataset
        # A GeoTIFF takes its colour table only before its first pixel.
        if self._colours is not None:
            dataset.write_colormap(1, dict(self._colours))
        dataset.update_tags(**self._tags)
        dataset.descriptions = self._band_names
        if self._scale is not None:
            dataset.scales = [self._scale] * len(self._band_names)
        return strips

    def _finish(self) -> None:
        strips = self._strips
        assert strips is not None, "a raster is finished after it was begun"
        strips.close()
        whole = self._folder / "whole.tif"
        make_cog(self._folder / "rows.tif", whole, self._overviews, strips.stored, strips.full)
        # A CRS that GeoTIFF keys cannot express is kept by GDAL in an .aux.xml.
        self.add_sidecars(whole)
        publish(whole, self.path)

    def _make_folder(self) -> Path:
        if self._keep_in is None:
            name = f".{self.path.name}."
            return Path(tempfile.mkdtemp(prefix=name, suffix=".part", dir=self.path.parent))
        folder = self._keep_in / f"{self.path.name}.part"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def _discard(self) -> None:
        if self._strips is not None:
            # The file is thrown away; why it failed is already on its way up.
            with suppress(*GDAL_ERRORS):
                self._strips.dataset.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
