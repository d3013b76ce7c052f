"""Rasters as files: their facts, and windows of their pixels."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._env import get_gdal_config, set_gdal_config
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.errors import OutputError, RasterError
from cvmh.geo.georeference import Georeference
from cvmh.geo.opening import GDAL_ERRORS, explain_read_failure, open_dataset
from cvmh.geo.tiling import Window

# Colour interpretations that say nothing about what a band shows; alpha is judged in validity.py.
NAMELESS = {ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha}

# A server that does not answer for half a minute is tried three times more, then given up.
PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_LOW_SPEED_TIME": 30,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
# Bytes of decoded blocks that GDAL may keep, whatever the machine has: each is needed only once.
GDAL_CACHE = 64 << 20


class Raster:
    """A raster opened for reading: GeoTIFF, VRT, PNG, JPEG, or any dataset name of GDAL.

    Use it as a context manager. Bands are numbered from 1, as everywhere in GDAL.

    Raises:
        RasterError: the file is missing, empty, damaged, or not a raster.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._dataset = open_dataset(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._dataset.close()

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self._dataset.height)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self._dataset.width)

    @property
    def num_bands(self) -> int:
        """Number of bands, an alpha band included."""
        return int(self._dataset.count)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        return self.num_bands, self.height, self.width

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtype of each band, for example "uint16"."""
        return tuple(self._dataset.dtypes)

    def dtype_of(self, bands: Sequence[int] | None = None) -> str:
        """Return the one dtype of some bands (default all).

        Raises:
            RasterError: the bands have several dtypes, or complex numbers.
        """
        found = {band: self.dtypes[band - 1] for band in bands or range(1, self.num_bands + 1)}
        kinds = sorted(set(found.values()))
        if len(kinds) > 1:
            listed = ", ".join(f"band {band} {dtype}" for band, dtype in found.items())
            raise RasterError(
                f"{self.path}: all bands must have one dtype, got {listed}; "
                "choose bands of one dtype or convert with gdal_translate -ot"
            )
        if kinds[0].startswith("complex"):
            raise RasterError(
                f"{self.path}: bands must hold real numbers, got {kinds[0]}; "
                "write amplitude or intensity first"
            )
        return kinds[0]

    def itemsize(self, bands: Sequence[int] | None = None) -> int:
        """Return the bytes of one sample of some bands (default all)."""
        return int(np.dtype(self.dtype_of(bands)).itemsize)

    @property
    def band_names(self) -> tuple[str, ...]:
        """The name of each band: its description, else its colour, else ``band_N``."""
        pairs = zip(self._dataset.descriptions, self._dataset.colorinterp, strict=True)
        return tuple(
            text or (f"band_{number}" if colour in NAMELESS else colour.name.lower())
            for number, (text, colour) in enumerate(pairs, start=1)
        )

    @property
    def is_palette(self) -> bool:
        """True if the values of the first band are numbers of colours, not intensities."""
        return self._dataset.colorinterp[0] == ColorInterp.palette

    @property
    def tagged_alpha(self) -> int | None:
        """The band tagged as alpha, rightly or not (see ``validity.find_alpha``)."""
        colours = list(self._dataset.colorinterp)
        return colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else None

    @property
    def has_mask(self) -> bool:
        """True if an internal mask or a ``.msk`` file says which pixels are data."""
        flags = self._dataset.mask_flag_enums[0]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """The declared nodata value of each band, None where none is declared."""
        return tuple(self._dataset.nodatavals)

    @property
    def crs(self) -> Any:
        """The rasterio CRS, or None."""
        return self._dataset.crs

    @property
    def transform(self) -> Any:
        """The affine map from (column, row) to (x, y); the identity if there is none."""
        return self._dataset.transform

    @property
    def gcps(self) -> tuple[Any, ...]:
        """The ground control points, mostly empty."""
        return tuple(self._dataset.gcps[0])

    @property
    def rpcs(self) -> Any:
        """The rational polynomial coefficients, or None."""
        return self._dataset.rpcs

    @property
    def georeference(self) -> Georeference:
        """All that says where the pixels lie, to carry over to another raster."""
        return Georeference(
            crs=self.crs,
            transform=self.transform,
            gcps=self.gcps,
            gcps_crs=self._dataset.gcps[1],
            rpcs=self.rpcs,
        )

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the dataset; a mask of cvmh has some whose names start with CVMH_."""
        return dict(self._dataset.tags())

    @property
    def gsd(self) -> float | None:
        """The ground sampling distance at the raster's centre in metres, None if unknown."""
        return self.georeference.ground_sampling_distance(self.height, self.width)

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the file is stored and decoded."""
        rows, columns = self._dataset.block_shapes[0]
        return int(rows), int(columns)

    @property
    def is_compressed(self) -> bool:
        """True if blocks must be decoded to be read."""
        return self._dataset.driver != "GTiff" or self._dataset.compression is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the raster is made of: itself, its sidecars, the sources of a VRT."""
        return tuple(Path(name) for name in self._dataset.files)

    @property
    def is_local(self) -> bool:
        """True if the raster is a file on this machine, not behind a network."""
        return Path(self.path).exists()

    def read(
        self, window: Window | None = None, bands: Sequence[int] | None = None
    ) -> NDArray[Any]:
        """Read pixels as (bands, height, width) in the raster's own dtype.

        Args:
            window: which pixels; default the whole raster.
            bands: which bands, numbered from 1, in this order, repeats allowed; default all.

        Raises:
            RasterError: the file is damaged or cut off there, a source of a VRT is missing, or
                the bands have several dtypes.
        """
        self.dtype_of(bands)
        where = window or Window(0, 0, self.height, self.width)
        chosen = list(bands or range(1, self.num_bands + 1))
        with self._explained(where):
            return np.asarray(self._dataset.read(chosen, window=_to_rasterio(where)))

    def read_small(self, bands: Sequence[int], *, most: int) -> NDArray[Any]:
        """Read bands in a picture's size, no side longer than ``most``, by nearest pixels.

        Overviews are used where the raster has them.

        Raises:
            RasterError: the raster is damaged.
        """
        factor = max(1.0, max(self.height, self.width) / most)
        size = max(1, round(self.height / factor)), max(1, round(self.width / factor))
        with self._explained(Window(0, 0, self.height, self.width)):
            return np.asarray(self._dataset.read(list(bands), out_shape=(len(bands), *size)))

    def read_mask(self, window: Window) -> NDArray[np.bool_]:
        """Read the internal or external mask as (height, width), true where valid.

        Only meaningful where ``has_mask``.

        Raises:
            RasterError: the mask is damaged.
        """
        with self._explained(window):
            return np.asarray(self._dataset.read_masks(1, window=_to_rasterio(window))) != 0

    @contextmanager
    def _explained(self, window: Window) -> Iterator[None]:
        try:
            yield
        except GDAL_ERRORS as error:
            raise explain_read_failure(self.path, window, error) from error


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Keep GDAL's cache of blocks, of all rasters together, within :data:`GDAL_CACHE`.

    Servers are given up when they do not answer; what the environment says of that counts more.
    """
    patience = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, **patience):
        yield


def limit_cache(size: int) -> None:
    """Let GDAL keep at most so many bytes of decoded blocks, from now on, in this process."""
    if get_gdal_config("GDAL_CACHEMAX") > size:
        set_gdal_config("GDAL_CACHEMAX", size)


def write_raster(
    path: str | Path,
    array: NDArray[Any],
    *,
    crs: Any = None,
    transform: Any = None,
    nodata: float | None = None,
    band_names: Sequence[str] | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Write a whole array as a compressed GeoTIFF, complete or not at all.

    Args:
        path: the file; an existing one is replaced.
        array: (bands, height, width) or (height, width).
        crs: anything that rasterio takes, for example "EPSG:32633".
        transform: affine map from (column, row) to (x, y).
        nodata: the value to declare as nodata in every band.
        band_names: one a band; kept as descriptions, and as colours where they name one.
        colours: colour table (red, green, blue) of values 0, 1, 2 ... of a single uint8 band.

    Raises:
        OutputError: the file cannot be written.
    """
    target = Path(path)
    bands = array[None] if array.ndim == 2 else array
    given = {"crs": crs, "transform": transform, "nodata": nodata}
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "compress": "deflate",
        "bigtiff": "IF_SAFER",
        # Left alone, GDAL tags the fourth band of any uint8 raster as alpha.
        "photometric": "RGB" if _is_rgb(band_names) else "MINISBLACK",
        "alpha": "NO",
        **{key: value for key, value in given.items() if value is not None},
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(temporary, "w", **profile) as dataset:
                _describe(dataset, band_names, colours)
                dataset.write(bands)
        temporary.replace(target)
    except GDAL_ERRORS as error:
        raise OutputError(f"{target} cannot be written ({error.__cause__ or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_rgb(band_names: Sequence[str] | None) -> bool:
    return [name.lower() for name in band_names or ()][:3] == ["red", "green", "blue"]


def _describe(
    dataset: Any,
    band_names: Sequence[str] | None,
    colours: Sequence[tuple[int, int, int]] | None,
) -> None:
    if colours is not None:
        dataset.write_colormap(1, {value: (*rgb, 255) for value, rgb in enumerate(colours)})
    if band_names is not None:
        known = {colour.name.lower(): colour for colour in ColorInterp}
        dataset.descriptions = tuple(band_names)
        dataset.colorinterp = [
            known.get(name.lower(), ColorInterp.undefined) for name in band_names
        ]


def _to_rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.column, window.row, window.width, window.height)
