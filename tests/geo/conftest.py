import warnings

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning


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
