"""A data set once more, as tiled rasters with index labels, where reading crops of it is slow."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.reading import check_label, read_label
from cvmh.errors import ConfigError, DataError, OutputError
from cvmh.files import lock, make_folder, write_complete
from cvmh.geo.raster import Raster
from cvmh.geo.tiled import BLOCK, write_tiled
from cvmh.geo.tiling import Window
from cvmh.geo.validity import find_alpha
from cvmh.progress import Progress, silent

# A crop of training, for the estimate of what reading costs.
CROP = 512
# Below this gain the disk space is not worth it.
WORTH = 2.0
# So many images are looked at for the estimate.
LOOKED_AT = 8
# Decoded in order, from the first row on.
SEQUENTIAL = (".png", ".jpg", ".jpeg")


class Gain(NamedTuple):
    """Samples decoded for each one of a crop: from the files as they are, and from tiled ones."""

    now: float
    tiled: float

    @property
    def factor(self) -> float:
        """How many times less is decoded."""
        return self.now / self.tiled

    @property
    def pays(self) -> bool:
        """True if the data set is read clearly faster when it is prepared."""
        return self.factor >= WORTH


def estimate_gain(data: SegmentationData, *, crop: int = CROP) -> Gain:
    """Estimate from sizes and blocks of a few files what tiling saves; no pixel is read.

    Raises:
        RasterError: a file cannot be opened.
    """
    step = max(1, len(data.images) // LOOKED_AT)
    now, tiled, used = 0.0, 0.0, 0
    for image in data.images[::step][:LOOKED_AT]:
        for path, is_label in ((image.image, False), (image.label, True)):
            with Raster(path) as raster:
                height, width, bands = raster.height, raster.width, raster.num_bands
                rows, columns = min(crop, height), min(crop, width)
                now += _decoded(raster, rows, columns) * bands
            blocks = _touched(height, rows, BLOCK) * _touched(width, columns, BLOCK)
            tiled += blocks * BLOCK * BLOCK * (1 if is_label else bands)
            used += rows * columns * (1 if is_label else bands)
    return Gain(now / used, tiled / used)


def prepare(
    data: SegmentationData,
    out: Path,
    *,
    anyway: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a data set as a folder data set of tiled, compressed GeoTIFFs with index labels.

    Georeference, band names and nodata are kept; labels that do not count become 255. ``out`` is
    there only when it is complete; a call that was interrupted is continued by the next one.

    Args:
        data: the data set as it lies on the disk.
        out: the new folder.
        anyway: write it also where reading gets hardly faster.
        progress: receives the images that are done.

    Raises:
        ConfigError: reading would hardly get faster.
        OutputError: ``out`` is not empty, cannot be written, or is being prepared already.
        DataError: a label does not fit its image, or holds what its encoding does not know.
        RasterError: a file cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; choose a new folder for the data set")
    gain = estimate_gain(data)
    if not gain.pays and not anyway:
        raise ConfigError(
            f"{data.name} in {data.root} need not be prepared: a crop of {CROP} pixels decodes "
            f"{gain.now:.1f} times its own size, from tiled files it would be {gain.tiled:.1f} "
            f"({gain.factor:.1f} times less); train on it as it is, or insist with --anyway"
        )
    make_folder(out.parent)
    unfinished = out.parent / f".{out.name}.unfinished"
    with _alone(unfinished):
        _begin(unfinished, _key(data))
        for done, image in enumerate(data.images, start=1):
            _write_image(unfinished, image, data)
            progress("prepare", done, len(data.images), "images")
        _describe(unfinished, data)
        if out.exists():
            out.rmdir()
        (unfinished / "key").unlink()
        unfinished.replace(out)


def _decoded(raster: Raster, rows: int, columns: int) -> float:
    """Return how many pixels are decoded, on average, for a window at any place."""
    if raster.path.lower().endswith(SEQUENTIAL):
        return (raster.height + rows) / 2 * raster.width
    if not raster.is_compressed:
        return rows * columns
    height, width = raster.block_shape
    blocks = _touched(raster.height, rows, height) * _touched(raster.width, columns, width)
    return blocks * height * width


def _touched(size: int, part: int, block: int) -> float:
    """Return how many blocks a part of a side touches, on average over its places."""
    return min(-(-size // block), (part - 1) / block + 1)


def _key(data: SegmentationData) -> str:
    """Return a hash of everything that the prepared files depend on."""
    digest = hashlib.sha256(f"{data.classes} {data.encoding} {data.band_names}".encode())
    for image in data.images:
        for path in (image.image, image.label, image.eroded):
            if path is not None:
                facts = path.stat()
                mark = f"{image.stem} {image.split} {path.resolve()} "
                digest.update(f"{mark} {facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    make_folder(folder)
    held = folder.with_name(f"{folder.name}.lock")
    with held.open("ab") as file:
        if not lock(file):
            raise OutputError(f"{folder.parent} is being prepared by another process; wait for it")
        try:
            yield
        finally:
            held.unlink(missing_ok=True)


def _begin(folder: Path, key: str) -> None:
    """Make the folders; what an interrupted call left of other files is removed."""
    mark = folder / "key"
    if not mark.exists() or mark.read_text() != key:
        shutil.rmtree(folder)
        make_folder(folder)
        write_complete(mark, key)
    for part in ("images", "masks", "masks_eroded"):
        make_folder(folder / part)


def _write_image(folder: Path, entry: LabelledImage, data: SegmentationData) -> None:
    """Write what is not there yet of an image and its labels."""
    name = f"{entry.stem}.tif"
    labels = {"masks": entry.label}
    if entry.eroded is not None and entry.has_full_label:
        labels["masks_eroded"] = entry.eroded
    with Raster(entry.image) as image:
        if not (folder / "images" / name).exists():
            _copy(folder / "images" / name, image, data)
        for part, source in labels.items():
            if not (folder / part / name).exists():
                with Raster(source) as label:
                    check_label(label, image, data.encoding)
                    _recode(folder / part / name, label, image, data)


def _copy(path: Path, image: Raster, data: SegmentationData) -> None:
    if image.has_mask:
        raise DataError(
            f"{image.path} has a mask of its own, which a tiled copy would lose; train on "
            f"{data.root} as it is"
        )
    names = data.band_names
    if names is None or len(names) != image.num_bands:
        names = image.band_names
    write_tiled(
        path,
        image.read,
        shape=image.shape,
        dtype=image.dtype_of(),
        georeference=image.georeference,
        nodata=image.nodata[0],
        band_names=names,
        alpha=None if data.band_names else find_alpha(image),
    )


def _recode(path: Path, label: Raster, image: Raster, data: SegmentationData) -> None:
    def read(window: Window) -> NDArray[np.uint8]:
        return read_label(label, data.encoding, window)[None]

    write_tiled(
        path,
        read,
        shape=(1, image.height, image.width),
        dtype="uint8",
        georeference=image.georeference,
        nodata=NODATA_ID,
        colours=data.classes.colours,
    )


def _describe(folder: Path, data: SegmentationData) -> None:
    eroded = folder / "masks_eroded"
    if not any(eroded.iterdir()):
        eroded.rmdir()
    about: dict[str, Any] = {
        "name": data.name,
        "gsd": data.gsd,
        "splits": data.splits,
        "source": f"{data.root}, layout {data.layout}",
    }
    write_complete(folder / "classes.json", json.dumps(data.classes.to_json(), indent=1) + "\n")
    write_complete(folder / "about.json", json.dumps(about, indent=1) + "\n")
    rows = ["stem,split,labels"]
    for image in data.images:
        rows.append(f"{image.stem},{image.split},{'full' if image.has_full_label else 'eroded'}")
    write_complete(folder / "split.csv", "\n".join(rows) + "\n")
