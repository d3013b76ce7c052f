import json
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from cvmh.classes import ClassTable

CLASSES = ClassTable.from_json(
    [
        {"id": 0, "name": "ground", "rgb": [10, 20, 30]},
        {"id": 1, "name": "roof", "rgb": [200, 0, 0]},
        {"id": 2, "name": "tree", "rgb": [0, 200, 0]},
    ]
)
DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the summaries of a test in a folder of its own, and return that folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CVMH_CACHE", str(folder))
    return folder


@pytest.fixture
def write():
    """Return a function that writes a raster (bands, H, W) with rasterio itself."""

    def write(path, array, *, names=None, colours=None, mask=None, palette=None, **profile):
        bands = array[None] if array.ndim == 2 else array
        count, height, width = bands.shape
        size = {"count": count, "height": height, "width": width, "dtype": bands.dtype.name}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False),
                rasterio.open(path, "w", driver=DRIVERS[path.suffix], **size, **profile) as dataset,
            ):
                if colours:
                    dataset.colorinterp = [ColorInterp[colour] for colour in colours]
                if names:
                    dataset.descriptions = names
                if palette:
                    dataset.write_colormap(1, palette)
                dataset.write(bands)
                if mask is not None:
                    dataset.write_mask(mask)
        return path

    return write


@pytest.fixture
def make_folder(tmp_path, write):
    """Return a function that writes a folder data set and gives its root.

    Each entry is ``stem: (split, image (bands, H, W), label (H, W))``.
    """

    def make(entries, *, name="set", suffix=".tif", label_suffix=".tif", label=None, **profile):
        root = tmp_path / name
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True)
        rows = ["stem,split"]
        for stem, (split, image, ids) in entries.items():
            write(root / "images" / f"{stem}{suffix}", image, **profile)
            write(root / "masks" / f"{stem}{label_suffix}", ids, **(label or {}))
            rows.append(f"{stem},{split}")
        (root / "classes.json").write_text(json.dumps(CLASSES.to_json()), encoding="utf-8")
        (root / "split.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return root

    return make


@pytest.fixture
def draw():
    """Return a function that draws an image (bands, H, W) and its label from a seed.

    Every band tells the label: its value is ``10 * label + 5 * band + 1`` plus 0 to 3 of noise.
    """

    def draw(seed, height=40, width=50, *, bands=3, dtype="uint8"):
        generator = np.random.default_rng(seed)
        label = generator.integers(0, len(CLASSES), (height, width)).astype(np.uint8)
        noise = generator.integers(0, 4, (bands, height, width))
        image = 10 * label[None] + 5 * np.arange(bands)[:, None, None] + 1 + noise
        return image.astype(dtype), label

    return draw


@pytest.fixture
def classes():
    """Return the class table of the drawn data sets."""
    return CLASSES
