"""Scores of a real scene, against scikit-learn and scipy on whole arrays."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, jaccard_score

from cvmh.config import DataSettings
from cvmh.datasets import open_data
from cvmh.models.bundle import Bundle, BundleCard
from cvmh.models.zoo import create_model
from cvmh.predict import predict_raster
from cvmh.report.evaluation import evaluate

DATA = os.environ.get("CVMH_TEST_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters"),
]


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings(root=Path(DATA) / "data" / "nb_landcover4"))


@pytest.fixture(scope="module")
def bundle(data):
    """A network that knows nothing: its masks have borders of all kinds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = create_model("cvmh_unet_nano", bands=3, num_classes=len(data.classes))
    card = BundleCard(
        model="cvmh_unet_nano",
        classes=data.classes,
        band_names=("red", "green", "blue"),
        dtype="uint8",
        mean=(90.0,) * 3,
        std=(50.0,) * 3,
        tile=64,
    )
    return Bundle(network=network.eval(), card=card)


def near_other_class(ids, radius):
    """Say where another class lies within a radius, by exact distance transforms."""
    near = np.zeros(ids.shape, dtype=bool)
    for number in np.unique(ids[ids != 255]):
        others = (ids != number) & (ids != 255)
        near |= (ids == number) & (distance_transform_edt(~others) <= radius)
    return near


def test_the_scores_of_a_real_scene_are_those_of_other_libraries(data, bundle, tmp_path):
    (image,) = data.of_split("val")
    predict_raster(image.image, tmp_path / "mask.tif", bundle, bands=(1, 2, 3))
    with rasterio.open(tmp_path / "mask.tif") as mask, rasterio.open(image.label) as label:
        guess, truth = mask.read(1), label.read(1)
    truth[guess == 255] = 255
    full, eroded = evaluate(
        bundle, data, protocols=["full", "isprs"], split="val", bands=(1, 2, 3), boundary=3
    ).scores
    inner = np.where(near_other_class(truth, 3), 255, truth)
    for found, labels in ((full, truth), (eroded, inner)):
        true, seen = labels[labels != 255], guess[labels != 255]
        assert np.sum(found.confusion) == true.size > 10_000
        assert found.miou == pytest.approx(jaccard_score(true, seen, average="macro"), abs=1e-9)
        assert found.mf1 == pytest.approx(f1_score(true, seen, average="macro"), abs=1e-9)
        assert found.oa == pytest.approx(accuracy_score(true, seen), abs=1e-9)
        assert found.kappa == pytest.approx(cohen_kappa_score(true, seen), abs=1e-9)
    known = np.where(truth == 255, 255, guess)
    band_truth, band_guess = near_other_class(truth, 3), near_other_class(known, 3)
    for number, name in enumerate(data.classes.names):
        one, other = band_truth & (truth == number), band_guess & (known == number)
        expected = (one & other).sum() / (one | other).sum()
        assert full.boundary.classes[name].iou == pytest.approx(expected, abs=1e-9)
