"""Reliability against its plain definition, pixel by pixel."""

import json

import numpy as np
import pytest

from cvmh.errors import ShapeError
from cvmh.metrics.calibration import BINS, FULL_LEVEL, Reliability, ReliabilityCounter


def draw(seed, num_pixels=4000, num_classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_pixels).astype("uint8")
    labels[rng.random(num_pixels) < 0.1] = 255
    predictions = rng.integers(num_classes, size=num_pixels).astype("uint8")
    predictions[::2] = np.where(labels[::2] < 255, labels[::2], 0)
    return labels, predictions, rng.beta(5, 1, num_pixels)


def plain(labels, predictions, confidence):
    """Return counts, hits, means, ECE and MCE of lists of numbers, as they are defined."""
    bins = [[] for _ in range(BINS)]
    for label, guess, sure in zip(labels, predictions, confidence, strict=True):
        if label == 255:
            continue
        place = next(m for m in range(BINS) if sure <= (m + 1) / BINS)
        bins[place].append((label == guess, sure))
    total = sum(map(len, bins))
    gaps = [
        abs(sum(hit for hit, _ in found) / len(found) - sum(sure for _, sure in found) / len(found))
        if found
        else 0.0
        for found in bins
    ]
    ece = sum(len(found) / total * gap for found, gap in zip(bins, gaps, strict=True))
    hits = tuple(sum(bool(hit) for hit, _ in found) for found in bins)
    return tuple(map(len, bins)), hits, ece, max(gaps)


def counted(*parts, num_classes=4):
    counter = ReliabilityCounter(num_classes)
    for part in parts:
        counter.add(*part)
    return counter


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_and_the_errors_are_those_of_the_definition(seed):
    pixels = draw(seed)
    found = counted(pixels).overall()
    counts, hits, ece, mce = plain(*(part.tolist() for part in pixels))
    assert (found.counts, found.hits) == (counts, hits)
    assert found.ece == pytest.approx(ece, abs=1e-12)
    assert found.mce == pytest.approx(mce, abs=1e-12)


def test_the_edges_of_bins_belong_to_the_bin_below():
    edges = np.arange(BINS + 1) / BINS
    nothing = np.zeros(BINS + 1, dtype="uint8")
    found = counted((nothing, nothing, edges)).overall()
    assert found.counts == (2, *[1] * (BINS - 1))


def test_pixels_may_come_in_parts_of_any_shape():
    labels, predictions, confidence = draw(5)
    whole = counted((labels, predictions, confidence)).overall()
    shaped = [part.reshape(40, 100) for part in (labels, predictions, confidence)]
    parts = counted(*zip(*(np.array_split(part, 7) for part in shaped), strict=True)).overall()
    assert parts.counts == whole.counts and parts.hits == whole.hits
    assert parts.ece == pytest.approx(whole.ece, abs=1e-12)


def test_the_reliability_of_a_class_is_that_of_the_pixels_predicted_as_it():
    labels, predictions, confidence = draw(6)
    counter = counted((labels, predictions, confidence))
    for number, found in enumerate(counter.by_class()):
        chosen = predictions == number
        alone = counted((labels[chosen], predictions[chosen], confidence[chosen])).overall()
        assert found == alone
    assert sum(found.pixels for found in counter.by_class()) == counter.overall().pixels


def test_scores_that_are_their_own_accuracy_have_no_error():
    confidence = np.repeat([0.25, 0.5, 0.75, 1.0], 400)
    place = np.tile(np.arange(400), 4)
    labels = np.where(place < confidence * 400, 1, 0)
    found = counted((labels, np.ones(1600, dtype=int), confidence)).overall()
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.mce == pytest.approx(0, abs=1e-12)


def test_without_a_labelled_pixel_there_is_no_error():
    found = counted((np.full(9, 255), np.zeros(9, dtype=int), np.full(9, 0.5))).overall()
    assert (found.ece, found.mce, found.pixels) == (None, None, 0)
    assert found.accuracy == (None,) * BINS


@pytest.mark.parametrize("seed", range(3))
def test_eight_bits_bias_neither_the_confidence_nor_the_errors(seed):
    labels, predictions, _ = draw(seed, num_pixels=200_000)
    # As sure as networks are: most of the scores lie in the last levels.
    confidence = 1 - np.random.default_rng(seed).exponential(0.01, len(labels)).clip(0, 1)
    levels = np.rint(confidence * FULL_LEVEL).astype("uint8")
    exact, coarse = ReliabilityCounter(4), ReliabilityCounter(4)
    exact.add(labels, predictions, confidence)
    coarse.add_levels(labels, predictions, levels)
    one, other = exact.overall(), coarse.overall()
    assert other.pixels == one.pixels
    assert other.ece == pytest.approx(one.ece, abs=2e-4)
    assert other.confidence[-1] == pytest.approx(one.confidence[-1], abs=2e-4)


@pytest.mark.parametrize("sure", [1.0, 0.9999, 253.6 / 254])
def test_the_last_level_is_off_by_a_quarter_of_a_level_at_most(sure):
    nothing = np.zeros(10, dtype="uint8")
    counter = ReliabilityCounter(1)
    counter.add_levels(nothing, nothing, np.full(10, np.rint(sure * FULL_LEVEL), dtype="uint8"))
    assert counter.overall().confidence[-1] == pytest.approx(sure, abs=0.2501 / FULL_LEVEL)


def test_a_level_falls_into_the_bin_of_the_middle_of_its_scores():
    levels = np.arange(FULL_LEVEL + 1, dtype="uint8")
    nothing = np.zeros(len(levels), dtype="uint8")
    coarse, exact = ReliabilityCounter(1), ReliabilityCounter(1)
    coarse.add_levels(nothing, nothing, levels)
    middles = levels / FULL_LEVEL
    middles[[0, -1]] = 0.25 / FULL_LEVEL, 1 - 0.25 / FULL_LEVEL
    exact.add(nothing, nothing, middles)
    assert coarse.overall().counts == exact.overall().counts
    assert coarse.overall().confidence == pytest.approx(exact.overall().confidence, abs=1e-12)


def test_a_reliability_survives_json():
    found = counted(draw(8)).overall()
    assert Reliability.model_validate(json.loads(found.model_dump_json())) == found


@pytest.mark.parametrize(
    ("labels", "predictions", "confidence", "match"),
    [
        ([0, 1], [0], [0.5], r"one shape, got \(2,\), \(1,\) and \(1,\)"),
        ([0], [255], [0.5], r"predicted class 0..3, got 255..255"),
        ([0], [0], [1.5], r"score 0..1"),
        ([0], [0], [np.nan], r"score 0..1"),
    ],
)
def test_what_is_no_prediction_is_refused(labels, predictions, confidence, match):
    with pytest.raises(ShapeError, match=match):
        counted((np.array(labels), np.array(predictions), np.array(confidence)))


def test_a_labelled_pixel_without_a_level_is_refused():
    with pytest.raises(ShapeError, match=r"0\.\.254, got 255"):
        ReliabilityCounter(2).add_levels(
            np.zeros(1, dtype="uint8"), np.zeros(1, dtype="uint8"), np.array([255], dtype="uint8")
        )
