import warnings

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from cvmh.classes import ISPRS
from cvmh.models.bundle import Bundle, BundleCard


@pytest.fixture
def make_bundle():
    """Return a function that builds a bundle around a network that sees each pixel alone."""

    def make(band_names=("red", "green", "blue"), network=None, **card):
        if network is None:
            network = torch.nn.Conv2d(len(band_names), len(ISPRS), 1)
            generator = torch.Generator().manual_seed(0)
            for values in network.parameters():
                values.data = torch.randn(values.shape, generator=generator) * 3
        given = {"model": "stub", "classes": ISPRS, "dtype": "uint8", "tile": 64, **card}
        given.setdefault("mean", (100.0,) * len(band_names))
        given.setdefault("std", (50.0,) * len(band_names))
        return Bundle(network=network.eval(), card=BundleCard(band_names=band_names, **given))

    return make


@pytest.fixture
def make_scene(tmp_path):
    """Return a function that writes a scene with rasterio itself and gives its path."""

    def make(array, name="scene.tif", **profile):
        count, height, width = array.shape
        size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver="GTiff", **size, **profile) as dataset:
                dataset.write(array)
        return path

    return make


@pytest.fixture
def read_mask():
    """Return a function that reads a mask with rasterio itself."""

    def read(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return dataset.read(1)

    return read


@pytest.fixture
def noise():
    """Return a function that gives a random uint8 array (bands, height, width)."""

    def make(*shape, dtype="uint8"):
        return np.random.default_rng(0).integers(1, 250, shape, dtype="uint8").astype(dtype)

    return make
