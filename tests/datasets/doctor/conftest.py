import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine

from cvmh.datasets.doctor import examine
from cvmh.datasets.synthetic_set import write_synthetic

SIDE = 256


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """Return a folder of six synthetic scenes without a fault, which no test changes.

    scene_0006 to scene_0010 are for training, scene_0011 for validation.
    """
    root = tmp_path_factory.mktemp("doctor") / "clean"
    write_synthetic(root, num_scenes=6, seed=6, height=SIDE, width=SIDE, gsd=0.25)
    return root


def moved(transform, down, right):
    """Return a transform that is moved by pixels."""
    a, b, c, d, e, f, *_ = transform
    return Affine(a, b, c + a * right + b * down, d, e, f + d * right + e * down)


class Patient:
    """A copy of the clean set, into which a test plants a fault."""

    def __init__(self, root, write):
        self.root, self.write = root, write

    def image(self, number):
        return self.root / "images" / f"scene_{number:04d}.tif"

    def label(self, number):
        return self.root / "masks" / f"scene_{number:04d}.tif"

    def read(self, path):
        with rasterio.open(path) as dataset:
            return dataset.read()

    def change(self, path, array=None, *, nodata="same", move=(0, 0), **options):
        """Write a file of the set anew, with what it held where nothing else is said.

        ``move`` is in pixels, down and right, and changes the georeference alone.
        """
        with rasterio.open(path) as dataset:
            array = dataset.read() if array is None else array
            kept = {
                "crs": dataset.crs,
                "transform": moved(dataset.transform, *move),
                "nodata": dataset.nodata if nodata == "same" else nodata,
            }
        kept |= options
        self.write(path, array, **{key: value for key, value in kept.items() if value is not None})

    def move_beside(self, number, other, *, down, right):
        """Move the georeference of a scene to a place beside another's, in pixels."""
        with rasterio.open(self.image(other)) as dataset:
            place = moved(dataset.transform, down, right)
        for path in (self.image(number), self.label(number)):
            self.change(path, transform=place)

    def rewrite_splits(self, rows):
        (self.root / "split.csv").write_text("stem,split\n" + "\n".join(rows) + "\n")

    def findings(self):
        return examine("folder", self.root).findings

    def found(self, code):
        """Return the only finding of a kind."""
        (finding,) = [finding for finding in self.findings() if finding.code == code]
        assert finding.what and finding.fix
        return finding


@pytest.fixture
def patient(clean, tmp_path, write):
    root = tmp_path / "set"
    shutil.copytree(clean, root)
    return Patient(root, write)


@pytest.fixture
def smooth():
    """Return a function that draws a smooth picture (H, W) float between 0 and 1 from a seed."""

    def smooth(seed, height, width, *, cell=16):
        generator = np.random.default_rng(seed)
        coarse = generator.random((height // cell + 2, width // cell + 2))
        fine = np.kron(coarse, np.ones((cell, cell)))[:height, :width]
        return 0.9 * fine + 0.1 * generator.random((height, width))

    return smooth
