"""Protocols on a known set as its files lie on a disk, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from cvmh.classes import ISPRS
from cvmh.config import DataSettings
from cvmh.datasets import open_data
from cvmh.geo.raster import Raster
from cvmh.models.bundle import Bundle, BundleCard
from cvmh.models.zoo import create_model
from cvmh.predict import predict_raster
from cvmh.report.evaluation import evaluate

TINY = {
    "widths": [8, 8, 16, 16],
    "encoder_depths": [1, 1, 1, 1],
    "decoder_depths": [1, 1, 1, 1],
    "num_frequencies": 2,
    "stem_widths": [8, 16],
}
TEST_AREAS = ("5", "15", "21", "30")
COLOURS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


@pytest.fixture(scope="module")
def bundle():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = create_model("cvmh_unet_nano", bands=3, num_classes=6, **TINY)
    card = BundleCard(
        model="cvmh_unet_nano",
        settings=TINY,
        classes=ISPRS,
        band_names=("nir", "red", "green"),
        dtype="uint8",
        mean=(120.0,) * 3,
        std=(60.0,) * 3,
        tile=32,
    )
    return Bundle(network=network.eval(), card=card)


def read_ids(path):
    """Turn the colours of a label into ids, black into 255."""
    with Raster(path) as label:
        colours = np.moveaxis(label.read(), 0, -1)
    ids = np.full(colours.shape[:2], 255, dtype=np.uint8)
    for number, colour in enumerate(COLOURS):
        ids[np.all(colours == colour, axis=-1)] = number
    return ids


def test_full_and_eroded_labels_of_vaihingen_are_scored_side_by_side(bundle, fake_set, tmp_path):
    root = fake_set("vaihingen", "ssrs")
    settings = DataSettings(dataset="vaihingen", root=root)

    def reopen(table):
        return open_data(settings.model_copy(update={"splits": table}))

    paper, ssrs = evaluate(
        bundle, open_data(settings), protocols=["cvmh-paper", "ssrs"], reopen=reopen
    ).scores
    names = {
        "cvmh-paper": "gts_for_participants/top_mosaic_09cm_area{}.tif",
        "ssrs": "gts_eroded_for_participants/top_mosaic_09cm_area{}_noBoundary.tif",
    }
    guesses = []
    for area in TEST_AREAS:
        image = root / "top" / f"top_mosaic_09cm_area{area}.tif"
        predict_raster(image, tmp_path / f"{area}.tif", bundle, bands=(1, 2, 3))
        with Raster(tmp_path / f"{area}.tif") as mask:
            guesses.append(mask.read()[0].ravel())
    guess = np.concatenate(guesses)
    for found in (paper, ssrs):
        labels = [read_ids(root / names[found.protocol].format(area)) for area in TEST_AREAS]
        truth = np.concatenate([label.ravel() for label in labels])
        counted = truth != 255
        true, seen = truth[counted], guess[counted]
        five = {"labels": range(5), "average": "macro", "zero_division": 0}
        assert found.miou == pytest.approx(jaccard_score(true, seen, **five), abs=1e-9)
        assert found.mf1 == pytest.approx(f1_score(true, seen, **five), abs=1e-9)
        assert found.oa == pytest.approx(accuracy_score(true, seen), abs=1e-9)
    assert np.sum(ssrs.confusion) < np.sum(paper.confusion) == 4 * 64 * 64
    assert paper.boundary.metres == pytest.approx(0.27)
