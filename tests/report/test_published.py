import numpy as np
import pytest

from cvmh.classes import ISPRS
from cvmh.datasets import KNOWN
from cvmh.metrics import PROTOCOLS, Facts, score
from cvmh.report.published import Published, compare
from cvmh.report.published_rows import PAPER, PUBLISHED, find_published


def scores(protocol="geoseg", split="test", **facts):
    return score(np.eye(6, dtype=int), ISPRS, protocol=protocol, split=split, facts=Facts(**facts))


def test_every_row_is_of_a_data_set_that_is_known():
    assert {row.dataset for row in PUBLISHED} <= set(KNOWN)


def test_every_row_names_its_source_and_a_protocol_that_there_is():
    assert len(PUBLISHED) > 100
    for row in PUBLISHED:
        assert row.source and row.method
        assert row.protocol is None or row.protocol in PROTOCOLS
        figures = [value for value in (row.miou, row.mf1, row.oa, *row.classes) if value]
        assert figures and all(40 < value < 100 for value in figures)


def test_no_network_is_there_twice_from_one_source():
    keys = [(row.dataset, row.method, row.source, row.caveat) for row in PUBLISHED]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("dataset", ["vaihingen", "potsdam"])
def test_the_figures_of_the_paper_agree_with_each_other(dataset):
    """Its means are those of the five classes, but for two slips that are in the paper."""
    slips = {("vaihingen", "UNetFormer"), ("potsdam", "MANet")}
    for method, (*classes, mf1, miou, _) in PAPER[dataset].items():
        iou = np.array(classes) / 100
        far = 0.1 if (dataset, method) in slips else 0.011
        assert miou == pytest.approx(100 * iou.mean(), abs=far)
        assert mf1 == pytest.approx(100 * (2 * iou / (1 + iou)).mean(), abs=far)


def test_rows_come_by_protocol_and_the_best_first():
    rows = find_published("potsdam")
    assert rows[0].method == "CVMH-UNet" and rows[0].miou == 80.99
    protocols = [row.protocol for row in rows]
    first = [protocols.index(name) for name in dict.fromkeys(protocols)]
    assert first == sorted(first) and protocols[-1] is None
    assert find_published("mine") == ()


ROW = Published(dataset="potsdam", method="m", source="s", protocol="geoseg", tta=True, miou=80)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "yes"),
        ({"trained_on": "official train"}, "perhaps: this bundle was trained on official train"),
        ({"trained_on": ""}, "perhaps: it is not known"),
        ({"tta": False}, "with test-time"),
        ({"split": "val"}, "split test"),
        ({"protocol": "mmseg"}, "geoseg is not scored here"),
        ({"seen_in": "training"}, "saw the split in training"),
        ({"seen_in": "selection"}, "saw the split in selection"),
    ],
)
def test_a_row_is_comparable_only_where_nothing_stands_against_it(changes, expected):
    given = {"tta": True, "splits": "geoseg", "trained_on": "geoseg train", **changes}
    verdict = compare(ROW, [scores(**given)])
    assert expected in verdict and verdict.startswith(("yes", "perhaps: ", "no: "))
    assert (verdict == "yes") == (expected == "yes")


def test_tables_that_are_one_under_two_names_train_alike():
    row = Published(dataset="potsdam", method="m", source="s", protocol="mmseg", miou=80)
    for trained_on, expected in (("official train", "yes"), ("geoseg train", "perhaps: ")):
        found = scores("mmseg", splits="mmseg", trained_on=trained_on)
        assert compare(row, [found]).startswith(expected)


def test_a_row_of_unknown_protocol_is_comparable_with_nothing():
    row = Published(dataset="potsdam", method="m", source="s", miou=80)
    assert compare(row, [scores(name) for name in PROTOCOLS]) == "no: its protocol is not known"
