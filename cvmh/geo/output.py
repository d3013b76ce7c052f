"""Rasters that are written: which names are refused, what lies beside them, why one failed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvmh.errors import OutputError
from cvmh.geo.opening import GDAL_ERRORS
from cvmh.geo.raster import Raster

SUFFIXES = (".tif", ".tiff")
# What an older raster of the same name may have left beside it; "{}" is the raster's name.
SIDECARS = ("{}.aux.xml", "{}.ovr", "{}.msk", "{}.vat.dbf", "{}.vat.cpg")


def check_name(path: Path) -> None:
    """Refuse a name that a raster cannot have, or whose folder is missing.

    Raises:
        OutputError: it is such a name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path} will be a GeoTIFF, so its name must end in .tif or .tiff")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")


def check_output(path: Path, scene: Raster, *, overwrite: bool) -> None:
    """Refuse a raster that could not or should not be written, before any work is done.

    Raises:
        OutputError: the name is not that of a GeoTIFF, the folder is missing, the file exists,
            or it would replace a file that the scene is read from.
    """
    check_name(path)
    if not path.exists():
        return
    if not path.is_file():
        raise OutputError(f"{path} is a folder; name a file")
    if any(source.exists() and source.samefile(path) for source in scene.files):
        raise OutputError(f"{path} would replace its own scene; choose another name")
    if not overwrite:
        raise OutputError(f"{path} exists; choose another name or add --overwrite")


def sidecars(path: Path) -> list[Path]:
    """Return the files that GDAL and QGIS read along with a raster, whether they exist or not."""
    named = [path.with_name(pattern.format(path.name)) for pattern in SIDECARS]
    return [*named, style_path(path)]


def style_path(path: Path) -> Path:
    """Return the file in which QGIS looks for the style of a raster."""
    return path.with_suffix(".qml")


def publish(made: Path, path: Path) -> None:
    """Move a finished raster and what lies beside it to its name; the raster itself comes last.

    Whoever sees the raster sees it complete and with its own sidecars.
    """
    replaced = dict(zip(sidecars(made), sidecars(path), strict=True))
    for file in (made, *filter(Path.exists, replaced)):
        sync(file)
    for stale in replaced.values():
        stale.unlink(missing_ok=True)
    for old, new in replaced.items():
        if old.exists():
            old.replace(new)
    made.replace(path)
    sync(path.parent)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the failures of GDAL and of the disk into one sentence about ``path``.

    Raises:
        OutputError: the block inside failed to write.
    """
    try:
        yield
    except OutputError:
        raise
    except GDAL_ERRORS as error:
        raise OutputError(_why_not_written(path, error)) from error


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk; folders cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why_not_written(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error.__cause__ or error)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return f"{path} cannot be written ({reason})"
    return (
        f"{path} cannot be written ({reason}); {free / 2**20:.0f} MiB are free there: "
        "is the disk full, a quota used up, or the folder not yours to write?"
    )
