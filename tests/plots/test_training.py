import numpy as np
from matplotlib.image import imread

from cvmh.plots import curves


def read_png(path):
    return (imread(path)[..., :3] * 255).round().astype(np.uint8)


def has_colour(picture, rgb):
    return (picture == rgb).all(axis=-1).any()


def test_curves_show_the_scores_that_there_are(tmp_path):
    rows = [
        {"epoch": 0, "train_loss": 1.5},
        {"epoch": 1, "train_loss": 1.0, "val_loss": 1.2, "val_miou": 0.3, "val_mf1": 0.4},
        {"epoch": 2, "train_loss": 0.8, "val_loss": 1.1, "val_miou": None},
    ]
    curves(tmp_path / "curves.png", rows)
    curves(tmp_path / "empty.png", [])
    full, empty = read_png(tmp_path / "curves.png"), read_png(tmp_path / "empty.png")
    assert full.shape == empty.shape == (396, 990, 3)
    # The first two colours of a plot: both sides have two curves.
    for rgb in [(31, 119, 180), (255, 127, 14)]:
        assert has_colour(full[:, :495], rgb) and has_colour(full[:, 495:], rgb)
        assert not has_colour(empty, rgb)
