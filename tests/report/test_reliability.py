"""What an evaluation's pixels say about their confidence, when it was stored in 8 bits."""

from pathlib import Path

import numpy as np
import pytest

from cvmh.datasets import LabelledImage
from cvmh.geo.tiling import Window
from cvmh.metrics.calibration import FULL_LEVEL, ReliabilityCounter
from cvmh.report.observing import Block
from cvmh.report.reliability import ReliabilityObserver

IMAGE = LabelledImage(stem="a", image=Path("a.tif"), label=Path("a.tif"), split="val")


def test_stored_confidence_is_binned_by_the_middle_of_its_level():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(3, size=(2, 60, 80)).astype("uint8")
    scores = (1 - rng.exponential(0.02, (60, 80))).clip(0, 1)
    levels = np.rint(scores * FULL_LEVEL).astype("uint8")
    # Where there is no data there is no label and no confidence.
    truth[:5], guess[:5] = 255, 255
    stored = np.where(guess == 255, np.nan, levels / np.float32(FULL_LEVEL)).astype("float32")
    observer, expected = ReliabilityObserver(3), ReliabilityCounter(3)
    for row in (0, 40):
        part = slice(row, row + 40)
        observer.add(
            Block(
                image=IMAGE,
                window=Window(row, 0, len(truth[part]), 80),
                truth_HW=truth[part],
                guess_HW=guess[part],
                confidence_HW=stored[part],
            )
        )
    expected.add_levels(truth, guess, levels)
    pairs = zip(
        (observer.found, *observer.by_class),
        (expected.overall(), *expected.by_class()),
        strict=True,
    )
    for found, wanted in pairs:
        assert (found.counts, found.hits) == (wanted.counts, wanted.hits)
        assert found.ece == pytest.approx(wanted.ece, abs=1e-12)
    exact = ReliabilityCounter(3)
    exact.add(truth, guess, scores)
    assert abs(observer.found.ece - exact.overall().ece) < 1e-3
