"""Areas of an evaluated split against counts by hand."""

import json

import numpy as np
import pytest

from cvmh.classes import ISPRS, ClassTable
from cvmh.metrics import Facts, score
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.areas import estimate_areas
from cvmh.models.bundle import BundleCard
from cvmh.report.areas import area_lines, estimate_evaluation, estimate_split, told_areas
from cvmh.report.evaluation import Evaluation

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
    found = estimate_split(scores, make_card(area_sample=sample), ground=CONFUSION * 0.25)
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
    found = estimate_split(scores, make_card(area_sample=draw_sample()), ground=None)
    assert (found.unit, found.labelled["building"]) == ("pixels", 4000)


def test_without_a_sample_there_is_no_estimate():
    assert estimate_split(score(CONFUSION, CLASSES), make_card(), ground=CONFUSION * 1.0) is None


@pytest.mark.parametrize("is_same", [True, False])
def test_the_table_shows_every_class_and_what_the_estimates_rest_on(is_same):
    # The validation split of another data set has the same name.
    facts = Facts(seen_in="selection" if is_same else "")
    scores = score(CONFUSION, CLASSES, split="val", facts=facts)
    card = make_card(area_sample=draw_sample())
    lines = list(area_lines(estimate_split(scores, card, ground=CONFUSION * 100.0)))
    assert lines[0] == "areas in ha, protocol full, split val"
    assert lines[2].split()[:2] == ["impervious", "55.00"]
    assert lines[2].split()[-1] == "60.00"
    assert lines[4].startswith(
        "estimated from split val of the bundle's training, 25 images or groups"
    )
    assert lines[4].endswith("the same split, so this is no test") == is_same


def test_what_cannot_be_estimated_is_a_dash_and_a_note():
    nothing = AreaSample(split="val", clusters=3, cells=())
    scores = score(CONFUSION, CLASSES, split="test")
    found = estimate_split(scores, make_card(area_sample=nothing), ground=None)
    lines = list(area_lines(found))
    assert lines[2].split() == ["impervious", "5,500", "-", "-", "-", "-", "6,000"]
    assert any(line.startswith("  note: 100.00% of the mask is") for line in lines)


@pytest.mark.parametrize(
    ("pixel", "unit", "mapped"),
    [
        (0.01, "m2", "55.00"),
        (100, "ha", "55.00"),
        (10_000, "km2", "55.00"),
        (50, "m2", "275,000.00"),
    ],
)
def test_areas_are_in_a_unit_that_shows_small_sets_too(pixel, unit, mapped):
    scores = score(CONFUSION, CLASSES, split="test")
    card = make_card(area_sample=draw_sample())
    lines = list(area_lines(estimate_split(scores, card, ground=CONFUSION * float(pixel))))
    assert lines[0].startswith(f"areas in {unit}, ")
    assert lines[2].split()[1] == mapped


def test_areas_are_those_of_the_first_protocol_of_full_labels():
    facts = (Facts(labels="eroded"), Facts(), Facts())
    scores = [score(CONFUSION, CLASSES, split="test", facts=entry) for entry in facts]
    grounds = [CONFUSION * factor for factor in (1.0, 2.0, 3.0)]
    card = make_card(area_sample=draw_sample())
    evaluation = Evaluation(scores=tuple(scores), data=None, grounds=tuple(grounds))
    found = estimate_evaluation(evaluation, card)
    assert found.labelled == {"impervious": 12_000, "building": 8_000}
    assert list(told_areas(evaluation, card)) == list(area_lines(found))
    eroded = Evaluation(scores=(scores[0],), data=None, grounds=(grounds[0],))
    assert estimate_evaluation(eroded, card) is None
    (line,) = told_areas(eroded, card)
    assert line.startswith("no areas: these labels leave out the pixels along borders")
    assert list(told_areas(eroded, make_card())) == []
