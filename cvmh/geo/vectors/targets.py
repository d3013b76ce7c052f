"""The file that polygons go to: checked before any work, whole or not there afterwards."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from cvmh.errors import OutputError
from cvmh.geo.output import explained, sync
from cvmh.geo.raster import Raster
from cvmh.geo.vectors.layers import FORMATS
from cvmh.geo.vectors.parquet import import_pyarrow

PARQUET = ".parquet"
SUFFIXES = (*FORMATS, PARQUET)
PYOGRIO_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError)
# What SQLite may have left beside an older file of the same name.
SIDECARS = ("{}-wal", "{}-shm", "{}-journal")


def check_vectors(target: str | Path, *, overwrite: bool = False) -> Path:
    """Refuse a file of polygons that could not or should not be written, before any work is done.

    Returns:
        The path of the file.

    Raises:
        OutputError: the suffix is that of no known format, pyarrow is missing for .parquet, the
            folder is missing, or the file exists.
    """
    path = Path(target)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"polygons can be written as {', '.join(SUFFIXES)}, got {path}; choose one of these"
        )
    if path.suffix.lower() == PARQUET:
        import_pyarrow()
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or add --overwrite")
    return path


def check_inputs(path: Path, *rasters: Raster | None) -> None:
    """Refuse a target that is one of the rasters that the polygons are made from.

    Raises:
        OutputError: it is.
    """
    sources = [file for raster in rasters if raster is not None for file in raster.files]
    if path.exists() and any(file.exists() and file.samefile(path) for file in sources):
        raise OutputError(f"{path} would replace its own source; choose another name")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside the target that is gone afterwards, with all that is in it.

    Its name is that of the target, so that what a killed run left there is removed by the next.

    Raises:
        OutputError: the folder cannot be made.
    """
    folder = path.with_name(f".{path.name}.part")
    with explained(path):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained_writing(path: Path) -> Iterator[None]:
    """Turn the failures of GDAL, pyarrow and the disk into one sentence about the target.

    Raises:
        OutputError: the block inside failed to write.
    """
    with explained(path):
        try:
            yield
        except PYOGRIO_ERRORS as error:
            raise OSError(str(error)) from error


def publish(made: Path, path: Path) -> None:
    """Move a finished file to its name."""
    sync(made)
    for pattern in SIDECARS:
        path.with_name(pattern.format(path.name)).unlink(missing_ok=True)
    made.replace(path)
    sync(path.parent)
