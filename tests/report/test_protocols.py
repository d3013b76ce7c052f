"""Each protocol on sixteen pixels, its scores worked out by hand."""

from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path

import numpy as np
import pytest

from cvmh.classes import ISPRS
from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.known import KNOWN
from cvmh.geo.raster import write_raster
from cvmh.metrics import PROTOCOLS
from cvmh.models.bundle import BundleCard
from cvmh.report.cases import make_cases
from cvmh.report.tally import Job, Tally, count_scene

X = 255
# Impervious 0, building 1, low vegetation 2, tree 3, car 4, clutter 5.
LABEL = [
    [0, 0, 1, 1],
    [0, 0, 1, 1],
    [5, 5, 3, 3],
    [5, 5, 3, 4],
]
ERODED = [
    [0, X, X, 1],
    [0, X, X, 1],
    [X, X, X, X],
    [5, 5, X, 4],
]
MASK = [
    [0, 0, 1, 1],
    [0, 1, 1, 0],
    [5, 5, 3, 3],
    [5, 0, 3, 3],
]
# Full labels: of impervious 3 of 4 are right, and 2 others are taken for it: 3 of 6. Building 3 of
# 4, and 1 other: 3 of 5. Tree 3 of 3, and 1 other: 3 of 4. Of 1 car none. Clutter 3 of 4, and no
# other. Low vegetation is nowhere. 12 of 16 pixels are right.
FULL_IOU = [F(1, 2), F(3, 5), None, F(3, 4), F(0), F(3, 4)]
FULL_F1 = [F(2, 3), F(3, 4), None, F(6, 7), F(0), F(6, 7)]
# Eroded labels: 7 pixels. Impervious 2 of 2, and 2 others: 2 of 4. Building 1 of 2. Tree is not
# labelled, but 1 car is taken for it. Clutter 1 of 2. 4 of 7 pixels are right.
ERODED_IOU = [F(1, 2), F(1, 2), None, F(0), F(0), F(1, 2)]
ERODED_F1 = [F(2, 3), F(2, 3), None, F(0), F(0), F(2, 3)]
EXPECTED = {
    # Protocol: mIoU, mF1, OA.
    "full": (F(13, 25), (F(2, 3) + F(3, 4) + F(6, 7) + 0 + F(6, 7)) / 5, F(3, 4)),
    "cvmh-paper": (F(37, 80), (F(2, 3) + F(3, 4) + F(6, 7) + 0) / 4, F(3, 4)),
    "mmseg": (F(3, 10), F(2, 5), F(4, 7)),
    "geoseg": (F(1, 4), F(1, 3), F(4, 7)),
    "ssrs": (F(1, 4), F(1, 3), F(4, 7)),
    "isprs": (F(1, 4), F(1, 3), F(4, 7)),
}
# By chance (4*5 + 4*4 + 3*4 + 1*0 + 4*3) / 16^2 = 60/256 would be right.
FULL_KAPPA = (F(3, 4) - F(60, 256)) / (1 - F(60, 256))


def make_card(classes):
    return BundleCard(
        model="any",
        classes=classes,
        band_names=("red", "green", "blue"),
        dtype="uint8",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


def write_ids(path, rows):
    write_raster(path, np.array([rows], dtype=np.uint8))
    return path


@pytest.fixture
def potsdam(tmp_path):
    """One image of Potsdam that is in every test split, with both of its labels."""
    image = LabelledImage(
        stem="2_13",
        image=tmp_path / "image.tif",
        label=write_ids(tmp_path / "label.tif", LABEL),
        eroded=write_ids(tmp_path / "eroded.tif", ERODED),
        split="test",
    )
    return SegmentationData(
        name="potsdam",
        root=tmp_path,
        classes=ISPRS,
        images=(image,),
        layout="isprs-rgb",
        splits="official",
        gsd=0.05,
    )


def score_mask(data, mask, names, **options):
    """Score a mask that was never predicted by several protocols."""

    def reopen(table):
        return replace(data, splits=table)

    cases = make_cases(make_card(data.classes), data, names, reopen=reopen, **options)
    tallies = [Tally(case, 1) for case in cases]
    for job in dict.fromkeys(job for tally in tallies for job in tally.jobs):
        count_scene(job, mask, tallies)
    return {tally.case.protocol: tally.scores() for tally in tallies}


@pytest.fixture
def scores(potsdam, tmp_path):
    return score_mask(potsdam, write_ids(tmp_path / "mask.tif", MASK), list(PROTOCOLS))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_gives_the_scores_that_were_worked_out_by_hand(scores, name):
    found, (miou, mf1, oa) = scores[name], EXPECTED[name]
    is_full = name in ("full", "cvmh-paper")
    rows = list(found.classes.values())
    known = [float(value) if value is not None else None for value in FULL_IOU]
    eroded = [float(value) if value is not None else None for value in ERODED_IOU]
    assert [row.iou for row in rows] == pytest.approx(known if is_full else eroded)
    f1 = FULL_F1 if is_full else ERODED_F1
    assert [row.f1 for row in rows] == pytest.approx(
        [float(value) if value is not None else None for value in f1]
    )
    assert (found.miou, found.mf1, found.oa) == pytest.approx((float(miou), float(mf1), float(oa)))
    assert np.sum(found.confusion) == (16 if is_full else 7)


def test_kappa_is_that_worked_out_by_hand(scores):
    assert scores["full"].kappa == pytest.approx(float(FULL_KAPPA))
    assert FULL_KAPPA == F(33, 49)


def test_every_score_says_by_which_protocol_it_was_made(scores):
    facts = {name: entry.facts for name, entry in scores.items()}
    assert {name: fact.labels for name, fact in facts.items()} == {
        "full": "full",
        "cvmh-paper": "full",
        "geoseg": "eroded",
        "mmseg": "eroded",
        "ssrs": "eroded",
        "isprs": "eroded",
    }
    assert {name for name, fact in facts.items() if fact.left_out == ("clutter",)} == {
        "cvmh-paper",
        "geoseg",
        "ssrs",
        "isprs",
    }
    assert not any(fact.uncounted for fact in facts.values())
    assert [name for name, fact in facts.items() if fact.tta] == ["geoseg"]
    tables = {name: fact.splits for name, fact in facts.items()}
    assert tables.pop("full") == tables.pop("isprs") == "official"
    assert all(name == table for name, table in tables.items())
    assert all(fact.is_stitched and fact.source for fact in facts.values())
    assert facts["geoseg"].labels_from == "of the data set"
    assert "split table geoseg, means without clutter, OA of all classes" in (
        facts["geoseg"].sentence
    )


def test_only_protocols_of_full_labels_have_scores_of_borders(scores):
    has = {name for name, entry in scores.items() if entry.boundary is not None}
    assert has == {"full", "cvmh-paper"}
    paper = scores["cvmh-paper"].boundary
    assert (paper.width, paper.metres) == (1, 0.05)
    kept = [row.iou for name, row in paper.classes.items() if name != "clutter"]
    known = [value for value in kept if value is not None]
    assert paper.miou == pytest.approx(sum(known) / len(known))


def test_the_border_of_a_set_without_eroded_labels_is_eroded_by_three_pixels(potsdam, tmp_path):
    # Sixteen pixels in a row; a border between the eighth and the ninth.
    label = [[0] * 8 + [1] * 8]
    mask = [[1] + [0] * 5 + [1] * 10]
    image = replace(potsdam.images[0], label=write_ids(tmp_path / "row.tif", label), eroded=None)
    data = replace(potsdam, images=(image,))
    path = write_ids(tmp_path / "mask.tif", mask)
    found = score_mask(data, path, ["isprs", "full"])
    # What is 1, 2 or 3 pixels from the other class is left out: five pixels a side are left, and
    # only the first of them is wrong.
    assert np.array(found["isprs"].confusion)[:2, :2].tolist() == [[4, 1], [0, 5]]
    assert found["isprs"].facts.labels_from == "made here with a disc of 3 pixels"
    assert found["isprs"].oa == pytest.approx(0.9)
    assert found["full"].oa == pytest.approx(13 / 16)


def test_ssrs_leaves_two_classes_of_loveda_out(potsdam, tmp_path):
    classes = KNOWN["loveda"].classes
    image = replace(
        potsdam.images[0],
        label=write_ids(tmp_path / "land.tif", [[0, 1, 5, 6], [0, 1, 5, 6]]),
        eroded=None,
    )
    data = replace(
        potsdam, name="loveda", layout="torchgeo", classes=classes, images=(image,), encoding=None
    )
    mask = write_ids(tmp_path / "mask.tif", [[0, 1, 5, 5], [0, 0, 5, 5]])
    found = score_mask(data, mask, ["ssrs"])["ssrs"]
    # Background 2 of 3, building 1 of 2; forest 2 of 4 and agriculture 0 of 2 do not enter.
    assert found.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.oa == pytest.approx(5 / 8)
    assert found.facts.left_out == ("forest", "agriculture")


def test_protocols_that_share_a_prediction_count_it_once_each(potsdam, tmp_path):
    cases = make_cases(
        make_card(ISPRS),
        potsdam,
        list(PROTOCOLS),
        reopen=lambda table: replace(potsdam, splits=table),
    )
    jobs = {job for case in cases for job in Tally(case, None).jobs}
    image = potsdam.images[0].image
    assert jobs == {Job(image, tta=False), Job(image, tta=True)}


def test_the_page_of_protocols_names_them_all():
    page = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    assert all(f"| `{name}` |" in page for name in PROTOCOLS)


def test_every_rule_names_classes_and_splits_that_its_data_set_has():
    for protocol in PROTOCOLS.values():
        for name, rule in protocol.rules.items():
            known = KNOWN[name]
            assert set(rule.left_out) | set(rule.uncounted) <= set(known.classes.names)
            assert rule.splits in known.splits
            assert rule.split in known.splits[rule.splits].expected
            assert rule.split not in known.splits[rule.splits].unlabelled
