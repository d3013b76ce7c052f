"""What the tests of whole runs share: a small data set, a small network, the command in a shell."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import settings

from cvmh.classes import ClassTable, SegClass
from cvmh.config import RunConfig
from cvmh.geo.raster import write_raster
from cvmh.models.bundle import BundleCard, save_bundle
from cvmh.models.zoo import create_model
from cvmh.settings import merge, validate
from cvmh.train import train

ROOT = Path(__file__).parents[1]
RGB = ("red", "green", "blue")
GRID = {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)}
CLASSES = ClassTable(
    (
        SegClass(id=0, name="field", rgb=(230, 60, 60)),
        SegClass(id=1, name="water", rgb=(60, 200, 60)),
        SegClass(id=2, name="roof", rgb=(60, 60, 230)),
    )
)
# The smallest network that still has every part of the large ones.
TINY = {
    "widths": [8, 8, 16, 16],
    "encoder_depths": [1, 1, 1, 1],
    "decoder_depths": [1, 1, 1, 1],
    "num_frequencies": 2,
    "stem_widths": [8, 16],
}
BLOCK = 16


# The same examples every time: a test that fails, fails for everybody.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Draw the same numbers in a test whichever others ran before it in its process."""
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(scope="session", autouse=True)
def interrupts():
    """Hear interrupts, here and in children; shells start jobs in the background deaf to them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def quiet_compilation():
    """Whether a kernel has been compiled before changes nothing that is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvmh.ops._numba.NOTICED_SECONDS", 1e6)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the statistics that tests compute out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVMH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw_scene(seed, height, width):
    """Return an image (3, height, width) and its label: squares, each in the colour of its class.

    The labels of the first four rows are 255.
    """
    rng = np.random.default_rng(seed)
    squares = rng.integers(len(CLASSES), size=(-(-height // BLOCK), -(-width // BLOCK)))
    label = squares.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width].astype("uint8")
    colours = np.array(CLASSES.colours)[label].transpose(2, 0, 1)
    image = np.clip(colours + rng.normal(0, 8, colours.shape), 1, 255).astype("uint8")
    label[:4] = 255
    return image, label


def write_data(root, *, size=64, splits=("train", "train", "val", "test")):
    """Write a folder data set of easy scenes and return its folder."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["stem,split"]
    for number, split in enumerate(splits):
        image, label = draw_scene(number, size, size)
        file = f"s{number}.tif"
        write_raster(root / "images" / file, image, nodata=0, band_names=RGB, **GRID)
        write_raster(root / "masks" / file, label, nodata=255, **GRID)
        rows.append(f"s{number},{split}")
    (root / "classes.json").write_text(json.dumps(CLASSES.to_json()))
    (root / "split.csv").write_text("\n".join(rows) + "\n")
    return root


def short_run(root, groups):
    """Return the settings of a run of a few seconds, changed by some groups of settings."""
    short = {
        "model": {"name": "cvmh_unet_nano", "settings": TINY},
        "data": {"root": str(root), "tile": 32, "batch": 4, "crops_per_epoch": 8, "workers": 0},
        "train": {"epochs": 2, "learning_rate": 1e-2},
    }
    return validate(RunConfig, merge(short, groups), source="test")


@pytest.fixture
def make_scene(tmp_path):
    """Return a function that writes a scene like those of the data sets and gives its path."""

    def make(name="scene.tif", seed=9, height=64, width=64, num_bands=3, dtype="uint8"):
        image, _ = draw_scene(seed, height, width)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        names = RGB[:num_bands]
        write_raster(path, image[:num_bands].astype(dtype), nodata=0, band_names=names, **GRID)
        return path

    return make


@pytest.fixture
def make_data(tmp_path):
    """Return a function that writes a folder data set that the test may change."""

    def make(name="data", **options):
        return write_data(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def read_page():
    """Return a function that reads a page of HTML as ``html_reader.HtmlReader`` does."""
    spec = importlib.util.spec_from_file_location("html_reader", ROOT / "tests" / "html_reader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HtmlReader


@pytest.fixture(scope="session")
def fake_sets():
    """Return the module ``fake_sets``, which writes known data sets as small fakes."""
    spec = importlib.util.spec_from_file_location("fake_sets", ROOT / "tests" / "fake_sets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published_weights():
    """Return the module ``published_weights``, which knows what published weight files hold."""
    file = ROOT / "tests" / "published_weights.py"
    spec = importlib.util.spec_from_file_location("published_weights", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes(tmp_path_factory, fake_sets):
    """Return a function that gives the folder of a fake and the class ids of its labels by path."""
    written = {}

    def get(name, layout):
        if (name, layout) not in written:
            root = tmp_path_factory.mktemp("fakes") / f"{name}-{layout}"
            written[name, layout] = root, fake_sets.write_fake(root, name, layout)
        return written[name, layout]

    return get


@pytest.fixture(scope="session")
def fake_set(fakes):
    """Return a function that gives the folder of a fake, which no test changes."""
    return lambda name, layout: fakes(name, layout)[0]


@pytest.fixture(scope="session")
def easy_data(tmp_path_factory):
    """Return a folder data set that no test changes."""
    return write_data(tmp_path_factory.mktemp("easy") / "data")


@pytest.fixture(scope="session")
def make_config(easy_data):
    """Return a function that gives the settings of a short run on an easy data set."""

    def make(root=easy_data, **groups):
        return short_run(root, groups)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, make_config):
    """Return the folder of a run that was long enough to learn the easy data set."""
    folder = tmp_path_factory.mktemp("runs") / "easy"
    config = make_config(data={"crops_per_epoch": 32}, train={"epochs": 8})
    train(config, folder, device="cpu", command="cvmh train --of-the-tests")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """Return the path of a bundle of a small network with random weights."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_model("cvmh_unet_nano", bands=3, num_classes=len(CLASSES), **TINY)
    card = BundleCard(
        model="cvmh_unet_nano",
        settings=TINY,
        classes=CLASSES,
        band_names=RGB,
        dtype="uint8",
        mean=(120.0, 110.0, 120.0),
        std=(80.0, 70.0, 80.0),
        gsd=0.5,
        tile=32,
        scores={"protocol": "full", "split": "val", "miou": 0.25},
    )
    save_bundle(path, network, card)
    return path


@pytest.fixture
def start_python(tmp_path):
    """Return a function that starts Python in ``tmp_path`` and gives the process.

    Arguments are those of Python; the process sees one thread and no GPU.
    """
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
