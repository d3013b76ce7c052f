"""Areas of an evaluated split against counts by hand."""

import json

import numpy as np
import pytest

from cvmh.classes import ISPRS, ClassTable
from cvmh.metrics import score
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.areas import estimate_areas
from cvmh.models.bundle import BundleCard
from cvmh.report.areas import area_lines, estimate_split

CLASSES = ClassTable(ISPRS.classes[:2])
CONFUSION = np.array([[5000, 1000], [500, 3500]])


def make_card(**changes):
    given = {"model": "stub", "classes": CLASSES, "band_names": ("red",), "dtype": "uint8"}
    return BundleCard(**{**given, "mean": (0.0,), "std": (1.0,), **changes})


def draw_sample(split="val"):
    rng = np.random.default_rng(0)
    shares = CONFUSION.ravel() / CONFUSION.sum()
    counts = [rng.multinomial(400, rng.dirichlet(shares * 30)).reshape(2, 2) for _ in range(25)]
    return AreaSample.of(np.array(counts), split=split)


def test_columns_are_mapped_and_rows_are_labelled_in_square_metres():
    sample = draw_sample()
    scores = score(CONFUSION, CLASSES, split="test")
    found = estimate_split(scores, make_card(area_sample=sample), gsd=0.5)
    assert found.unit == "m2"
    assert found.labelled == {"impervious": 1500, "building": 1000}
    mapped = [row.mapped for row in found.estimates.classes.values()]
    assert mapped == [5500 / 4, 4500 / 4]
    plain = estimate_areas(np.array([1375.0, 1125.0]), sample.counts(2), CLASSES.names)
    assert found.estimates == plain
    row = found.estimates.classes["impervious"].area
    assert row.low < 1500 < row.high
    content = json.loads(json.dumps(found.to_json()))
    assert content["classes"]["building"]["mapped"] == 1125


def test_without_a_scale_pixels_are_counted():
    scores = score(CONFUSION, CLASSES, split="test")
    found = estimate_split(scores, make_card(area_sample=draw_sample()), gsd=None)
    assert (found.unit, found.labelled["building"]) == ("pixels", 4000)


def test_without_a_sample_there_is_no_estimate():
    assert estimate_split(score(CONFUSION, CLASSES), make_card(), gsd=1.0) is None


@pytest.mark.parametrize("is_same", [True, False])
def test_the_table_shows_every_class_and_what_the_estimates_rest_on(is_same):
    # The validation split of another data set has the same name.
    scores = score(CONFUSION, CLASSES, split="val")
    card = make_card(area_sample=draw_sample())
    lines = list(area_lines(estimate_split(scores, card, gsd=10.0), is_same=is_same))
    assert lines[0] == "areas in ha, split val"
    assert lines[2].split()[:2] == ["impervious", "55.00"]
    assert lines[2].split()[-1] == "60.00"
    assert lines[4].startswith(
        "estimated from split val of the bundle's training, 25 images or groups"
    )
    assert lines[4].endswith("the same split, so this is no test") == is_same


def test_what_cannot_be_estimated_is_a_dash_and_a_note():
    nothing = AreaSample(split="val", clusters=3, cells=())
    scores = score(CONFUSION, CLASSES, split="test")
    found = estimate_split(scores, make_card(area_sample=nothing), gsd=None)
    lines = list(area_lines(found, is_same=False))
    assert lines[2].split() == ["impervious", "5,500", "-", "-", "-", "-", "6,000"]
    assert any(line.startswith("  note: 100.00% of the mask is") for line in lines)
