"""A folder data set of synthetic scenes, written as georeferenced GeoTIFFs."""

import json
from pathlib import Path

from affine import Affine

from cvmh.classes import ISPRS
from cvmh.datasets.synthetic import make_scene, scene_origin
from cvmh.errors import OutputError
from cvmh.files import make_folder, write_complete
from cvmh.geo.raster import write_raster
from cvmh.progress import Progress, silent

CRS = "EPSG:32632"


def write_scene(
    seed: int,
    image: Path,
    labels: Path,
    *,
    height: int,
    width: int,
    gsd: float,
) -> None:
    """Make the scene of a seed and write its image (nodata 0) and its labels (nodata 255).

    Raises:
        RasterError: a file cannot be written.
    """
    scene = make_scene(seed, height=height, width=width, gsd=gsd)
    easting, northing = scene_origin(seed)
    transform = Affine(gsd, 0, easting, 0, -gsd, northing)
    write_raster(
        image,
        scene.image,
        crs=CRS,
        transform=transform,
        nodata=0,
        band_names=("red", "green", "blue"),
    )
    write_raster(
        labels, scene.labels, crs=CRS, transform=transform, nodata=255, colours=ISPRS.colours
    )


def write_synthetic(
    root: Path,
    *,
    num_scenes: int = 5,
    seed: int = 0,
    height: int = 1024,
    width: int = 1024,
    gsd: float = 0.25,
    progress: Progress = silent,
) -> None:
    """Write a folder data set of synthetic scenes; the last fifth, at least one, is for validation.

    Args:
        root: the new folder.
        num_scenes: how many scenes; at least 2.
        seed: scene number i is made from seed + i.
        height: rows of each scene.
        width: columns of each scene.
        gsd: ground sampling distance in metres per pixel.
        progress: receives the scenes that are done.

    Raises:
        OutputError: the folder exists and is not empty, or cannot be made.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(f"{root} is not empty; choose a new folder for the data set")
    for part in ("images", "masks"):
        make_folder(root / part)
    first_val = num_scenes - max(1, num_scenes // 5)
    rows = ["stem,split"]
    for number in range(num_scenes):
        stem = f"scene_{seed + number:04d}"
        write_scene(
            seed + number,
            root / "images" / f"{stem}.tif",
            root / "masks" / f"{stem}.tif",
            height=height,
            width=width,
            gsd=gsd,
        )
        rows.append(f"{stem},{'train' if number < first_val else 'val'}")
        progress("scenes", number + 1, num_scenes, "scenes")
    write_complete(root / "classes.json", json.dumps(ISPRS.to_json(), indent=1) + "\n")
    # Last, because a folder without it is no data set: an interrupted run is not mistaken for one.
    write_complete(root / "split.csv", "\n".join(rows) + "\n")
