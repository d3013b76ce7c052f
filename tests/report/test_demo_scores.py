"""What the demonstration's network learns that colour does not tell: the claim of its picture."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from cvmh.classes import ISPRS, NODATA_ID
from cvmh.geo.raster import Raster
from cvmh.metrics import count_confusion, score
from cvmh.report.demo import run_demo

PIXELS_PER_SCENE = 30_000
CLASSIFIERS = {
    "forest": RandomForestClassifier(20, min_samples_leaf=20, random_state=0),
    "balanced forest": RandomForestClassifier(
        20, min_samples_leaf=20, class_weight="balanced", random_state=0
    ),
    "boosting": HistGradientBoostingClassifier(max_iter=50, random_state=0),
    "gaussians": QuadraticDiscriminantAnalysis(),
    "bayes": GaussianNB(),
    "neighbours": KNeighborsClassifier(25),
}


def read_pixels(image, labels):
    """Return colours (pixels, 3) and class ids (pixels,) where there are labels."""
    with Raster(image) as raster, Raster(labels) as truth:
        colours, ids = raster.read().reshape(3, -1).T, truth.read().ravel()
    return colours[ids != NODATA_ID], ids[ids != NODATA_ID].astype(np.int64)


def mean_iou(predicted, truth):
    return score(count_confusion(truth, predicted, len(ISPRS)), ISPRS).miou


@pytest.mark.slow
def test_the_network_sees_far_more_than_colour(tmp_path):
    result = run_demo(tmp_path / "demo")
    rng = np.random.default_rng(0)
    parts = []
    for image in sorted((tmp_path / "demo/training/data/images").iterdir()):
        colours, ids = read_pixels(image, image.parent.parent / "masks" / image.name)
        chosen = rng.choice(len(ids), PIXELS_PER_SCENE, replace=False)
        parts.append((colours[chosen], ids[chosen]))
    colours, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    unseen, truth = read_pixels(tmp_path / "demo/scene.tif", tmp_path / "demo/labels.tif")
    sample = rng.choice(len(truth), 100_000, replace=False)
    by_colour = {
        name: mean_iou(classifier.fit(colours, ids).predict(unseen[sample]), truth[sample])
        for name, classifier in CLASSIFIERS.items()
    }
    print(f"network {result.scores.miou:.3f}, by colour {by_colour}")
    assert result.scores.miou >= 0.60
    assert result.scores.miou >= max(by_colour.values()) + 0.25, by_colour
