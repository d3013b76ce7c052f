import os
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

PYTHON_OF_QGIS = "/usr/bin/python3"


@cache
def qgis_is_there():
    probe = [PYTHON_OF_QGIS, "-c", "import qgis.core"]
    return (
        Path(PYTHON_OF_QGIS).exists() and subprocess.run(probe, capture_output=True).returncode == 0
    )


@pytest.fixture
def in_qgis(tmp_path_factory):
    """Return a function that runs a program of QGIS without a window; skip where there is none.

    A script that ends in .py runs in the Python of QGIS.
    """
    if not qgis_is_there():
        pytest.skip("QGIS (python3-qgis) is not installed")
    # The libraries and settings of this environment and of the user are not those of QGIS.
    foreign = ("PYTHONPATH", "PYTHONHOME", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "DISPLAY")
    inherited = {key: value for key, value in os.environ.items() if key not in foreign}
    environment = {
        **inherited,
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path_factory.mktemp("settings")),
        "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime")),
        "LC_ALL": "C.UTF-8",
    }

    def run(program, *arguments, settings=None, **variables):
        command = [str(program), *map(str, arguments)]
        if command[0].endswith(".py"):
            command.insert(0, PYTHON_OF_QGIS)
        own = {"QGIS_CUSTOM_CONFIG_PATH": str(settings)} if settings else {}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            env={**environment, **own, **variables},
        )

    return run


@pytest.fixture
def qgis_process():
    """Return the program that runs the tools of QGIS; skip where there is none."""
    # What Debian calls qgis_process is a script that asks for a window.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed")
    return program


@pytest.fixture
def make_raster(tmp_path):
    """Return a function that writes a raster with rasterio itself and gives its path."""

    def make(name="scene.tif", array=None, colours=None, names=None, mask=None, **profile):
        array = np.arange(2 * 9 * 7, dtype="uint8").reshape(2, 9, 7) if array is None else array
        count, height, width = array.shape
        size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
        given = {key: value for key, value in profile.items() if value is not None}
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(path, "w", driver="GTiff", **size, **given) as dataset,
            ):
                if colours:
                    dataset.colorinterp = colours
                if names:
                    dataset.descriptions = names
                dataset.write(array)
                if mask is not None:
                    dataset.write_mask(mask)
        return path

    return make
