"""The page of an evaluation, read as a browser reads it."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from cvmh.classes import ISPRS, ClassTable, SegClass
from cvmh.datasets import LabelledImage
from cvmh.geo.tiling import Window
from cvmh.metrics import (
    PROTOCOLS,
    BoundaryClassScore,
    BoundaryScores,
    Facts,
    count_confusion,
    score,
)
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.calibration import Calibration, ReliabilityCounter
from cvmh.models.bundle import BundleCard
from cvmh.report.areas import estimate_split
from cvmh.report.page import Findings, evaluation_page
from cvmh.report.published_rows import find_published
from cvmh.report.run_folder import RunFolder
from cvmh.report.window_pictures import WindowPanels
from cvmh.report.windows import ScoredWindow

HOSTILE = "<script>alert('x')</script> & \"$y$\""
FOUR = ("cvmh-paper", "geoseg", "mmseg", "ssrs")


def confusion(num_classes, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 900, (num_classes, num_classes))
    counts[np.arange(num_classes), np.arange(num_classes)] += 20_000
    return counts


def table_of(names):
    rng = np.random.default_rng(5)
    return ClassTable(
        tuple(
            SegClass(id=number, name=name, rgb=tuple(rng.integers(0, 256, 3).tolist()))
            for number, name in enumerate(names)
        )
    )


def boundary_of(classes):
    row = BoundaryClassScore(iou=0.314, f1=0.478, precision=0.5, recall=0.4)
    return BoundaryScores(
        width=3, metres=0.15, miou=0.314, mf1=0.478, classes=dict.fromkeys(classes.names, row)
    )


def scores_of(classes, protocols=("full",), *, split="test", seed=0):
    return [
        score(
            confusion(len(classes), seed + number),
            classes,
            protocol=name,
            split=split,
            facts=Facts(
                left_out=("clutter",) if name in ("geoseg", "ssrs", "cvmh-paper") else (),
                labels="full" if name in ("full", "cvmh-paper") else "eroded",
                tta=name == "geoseg",
                splits=name,
                trained_on=f"{name} train",
                is_stitched=True,
                note=f"note of {name}",
                source=PROTOCOLS[name].source,
            ),
            boundary=boundary_of(classes) if name == "full" else None,
        )
        for number, name in enumerate(protocols)
    ]


def reliability():
    rng = np.random.default_rng(3)
    counter, sure = ReliabilityCounter(3), rng.random(5000)
    guess = rng.integers(0, 3, 5000)
    counter.add(np.where(rng.random(5000) < sure, guess, (guess + 1) % 3), guess, sure)
    return counter.overall()


def panels(seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, 3, (2, 20, 24)).astype(np.uint8)
    truth[:5] = 255
    image = LabelledImage(stem=f"s{seed}", image=Path("i"), label=Path("l"), split="test")
    found = ScoredWindow(image=image, window=Window(7, 9, 20, 24), truth_HW=truth, guess_HW=guess)
    pixels = rng.integers(0, 256, (4, 20, 24, 3)).astype(np.uint8)
    return WindowPanels(
        found=found, image=pixels[0], label=pixels[1], mask=pixels[2], error=pixels[3]
    )


def areas_of(classes, *, split="val", gsd=0.05, counts=None, facts=None):
    """Return the areas of the first scores by a sample of eight scenes."""
    found = confusion(len(classes)) if counts is None else counts
    sample = (
        [confusion(len(classes), seed) for seed in range(8)] if counts is None else [counts] * 3
    )
    card = BundleCard(
        model="cvmh_unet",
        classes=classes,
        band_names=("red",),
        dtype="uint8",
        mean=(0.0,),
        std=(1.0,),
        area_sample=AreaSample.of(np.stack(sample), split=split),
    )
    ground = None if gsd is None else found * gsd**2
    return estimate_split(
        score(found, classes, split="test", facts=facts or Facts()), card, ground=ground
    )


def everything(classes=ISPRS, protocols=("full",), **changes):
    state = reliability()
    findings = Findings(
        title="cvmh_unet on potsdam, split test",
        about={"bundle": "runs/a/best.safetensors", "command": "cvmh evaluate", "empty": ""},
        dataset="potsdam",
        classes=classes,
        scores=scores_of(classes, protocols),
        reliability=state,
        calibration=Calibration(
            split="val", nll_before=0.7, nll_after=0.6, before=state, after=state
        ),
        temperature=1.25,
        areas=areas_of(classes),
        worst=[panels(1), panels(2)],
        best=[panels(3)],
        run=RunFolder(
            rows=({"epoch": 1, "train_loss": 2.0, "val_miou": 0.5},), settings="train:\n  epochs: 9"
        ),
    )
    return dataclasses.replace(findings, **changes)


def bare(classes=ISPRS, **changes):
    return Findings(title="bare", classes=classes, scores=scores_of(classes), **changes)


LONG = [f"a very long name of a class, number {number} of the legend" for number in range(16)]
CASES = {
    "everything": everything(protocols=("full", *FOUR)),
    "bare": bare(),
    "two classes": bare(table_of(["no", "yes"])),
    "sixteen long names": bare(table_of(LONG)),
    "hostile names": everything(
        table_of([HOSTILE, "b</style>", "--><!--"]),
        title=HOSTILE,
        about={HOSTILE: HOSTILE},
        run=RunFolder(rows=(), settings=f"</pre>{HOSTILE}"),
    ),
    "no reliability": everything(reliability=None, calibration=None),
    "only calibration": everything(reliability=None),
    "no areas": everything(areas=None),
    "no run": everything(run=None),
    "no windows": everything(worst=(), best=()),
    "nothing labelled": Findings(
        title="none", classes=ISPRS, scores=[score(np.zeros((6, 6), int), ISPRS, split="val")]
    ),
}


@pytest.fixture(scope="module")
def pages(read_page):
    return {name: read_page(evaluation_page(findings)) for name, findings in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_well_formed_and_needs_no_other_file(pages, name):
    page = pages[name]
    assert not page.wrong
    assert not page.of("script", "link", "iframe", "object", "base")
    for address in page.addresses():
        assert address.startswith(("data:image/png;base64,", "#"))
    assert "http" not in page.style and not re.search(r"https?://", page.text)


@pytest.mark.parametrize("name", CASES)
def test_everybody_can_read_it(pages, name):
    page = pages[name]
    assert all(image["alt"] for image in page.of("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.of("svg"))
    assert all(cell["scope"] in ("col", "row") for cell in page.of("th"))
    assert len(page.of("table")) == len(page.of("caption"))
    assert page.of("html")[0]["lang"] == "en" and len(page.of("h1")) == 1
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.of("a")]
    assert links and all(link[1:] in ids for link in links)


@pytest.mark.parametrize("name", CASES)
def test_every_protocol_and_class_is_there_with_its_numbers(pages, name):
    page, findings = pages[name], CASES[name]
    assert findings.title in page.text
    words = {piece.strip() for piece in page.pieces}
    for entry in findings.scores:
        assert entry.protocol in page.text and entry.facts.note in page.text
        for value in (entry.miou, entry.mf1, entry.oa):
            assert ("-" if value is None else f"{100 * value:.1f}") in words
        for label, row in entry.classes.items():
            assert label in page.text and f"{row.pixels:,}" in words
            for value in (row.iou, row.f1, row.precision, row.recall):
                assert ("-" if value is None else f"{100 * value:.1f}") in words


def test_the_cells_of_the_confusion_are_shares_of_labels_with_the_counts_on_hover(pages):
    findings = CASES["two classes"]
    page, counts = pages["two classes"], np.array(findings.scores[0].confusion)
    cells = [a for a in page.of("span") if a.get("class", "").startswith(("hit", "miss"))]
    shares = counts / counts.sum(axis=1, keepdims=True)
    found = [float(cell["style"].removeprefix("--share:")) for cell in cells]
    assert found == pytest.approx(shares.ravel(), abs=5e-4)
    assert [cell["class"].split()[0] for cell in cells] == ["hit", "miss", "miss", "hit"]
    assert cells[1]["title"] == (
        f"{counts[0, 1]:,} of {counts[0].sum():,} pixels of no are predicted as yes"
    )


def test_many_classes_have_their_mistakes_listed_instead_of_a_matrix(read_page):
    classes = table_of([f"class {number}" for number in range(120)])
    counts = np.diag(np.full(120, 1000))
    counts[7, 50], counts[8, 3] = 250, 600
    text = evaluation_page(
        Findings(title="many", classes=classes, scores=[score(counts, classes, split="test")])
    )
    rows = read_page(text).rows
    first = rows.index(["label", "predicted", "pixels", "share of the label %"])
    assert rows[first + 1] == ["class 8", "class 3", "600", "37.5"]
    assert rows[first + 2] == ["class 7", "class 50", "250", "20.0"]
    assert len(text) < 1_000_000


def test_published_rows_stand_beside_the_protocol_that_they_follow(pages):
    text = pages["everything"].text
    for row in find_published("potsdam"):
        assert row.method in text and f"{row.miou:g}" in text and row.source in text
    head, _, others = text.partition("published rows that do not compare")
    rows = [row[:5] for row in pages["everything"].rows]
    assert ["CVMH-UNet", "80.99", "89.35", "88.96", "yes"] in rows
    assert ["FCN-HRNet W48", "79.34", "-", "-", "no: it is with test-time augmentation"] in rows
    assert ["PyramidMamba", "88", "-", "-", "no: its protocol is not known"] in rows
    assert "CVMH-UNet" in head and "PyramidMamba" in others and "PyramidMamba" not in head
    # Each of the protocols that others follow has the bundle's own row.
    own = [row for row in rows if row[0] == "this bundle"]
    figures = {entry.protocol: entry for entry in CASES["everything"].scores}
    assert [row[1] for row in own] == [
        f"{100 * figures[name].miou:.1f}" for name in ("cvmh-paper", "geoseg", "mmseg")
    ]
    assert "Published figures" not in pages["bare"].text


def test_a_split_that_the_bundle_saw_is_told_in_red(read_page):
    (entry,) = scores_of(ISPRS)
    facts = entry.facts.model_copy(update={"seen_in": "training", "seen": "2 of 3 images: a, b"})
    scores = [entry.model_copy(update={"facts": facts})]
    page = read_page(evaluation_page(Findings(title="t", classes=ISPRS, scores=scores)))
    assert "Protocol full: this bundle was trained on images that are scored here" in page.text
    assert "training: 2 of 3 images: a, b" in page.text


def test_what_is_not_there_leaves_no_trace(pages):
    sections = {
        "bare": set(),
        "no areas": {"windows", "reliability", "training"},
        "no run": {"windows", "reliability", "areas"},
        "no windows": {"reliability", "areas", "training"},
        "no reliability": {"windows", "areas", "training"},
        "only calibration": {"windows", "reliability", "areas", "training"},
    }
    for name, expected in sections.items():
        found = {a["id"] for a in pages[name].of("section")}
        assert found == {"scores", "classes", "reading"} | expected


def test_windows_show_four_pictures_each_and_what_is_wrong(pages):
    page = pages["everything"]
    alts = [image["alt"] for image in page.of("img")]
    assert len(alts) == 12
    where = "s1, rows 7..27, columns 9..33"
    assert alts[:4] == [f"{kind} of {where}" for kind in ("image", "label", "prediction", "error")]
    found = CASES["everything"].worst[0].found
    counted = found.truth_HW != 255
    wrong = (found.truth_HW != found.guess_HW)[counted].mean()
    assert f"{100 * wrong:.1f} % wrong" in page.text


def test_areas_are_in_a_fitting_unit_where_the_ground_is_known_and_in_pixels_elsewhere(read_page):
    counts = np.array(CASES["everything"].scores[0].confusion)
    for gsd, unit, size in ((0.05, "m\u00b2", 1), (5, "ha", 1e4), (50, "km\u00b2", 1e6)):
        page = read_page(evaluation_page(everything(areas=areas_of(ISPRS, gsd=gsd))))
        row = page.rows[[row[1:2] for row in page.rows].index([f"mapped {unit}"]) + 1]
        assert row[1] == f"{counts.sum(axis=0)[0] * gsd**2 / size:,.2f}"
    in_pixels = read_page(evaluation_page(everything(areas=areas_of(ISPRS, gsd=None))))
    assert "mapped pixels" in in_pixels.text and f"{counts.sum(axis=0)[0]:,}" in in_pixels.text


def test_areas_of_a_sample_like_the_mask_are_those_of_the_labels(read_page):
    """Where the sample is the split itself, estimated and labelled areas are one."""
    classes = table_of(["a", "b"])
    counts = np.array([[900, 100], [50, 450]])
    facts = Facts(seen_in="selection", seen="1 of 1 images: a")
    findings = Findings(
        title="t",
        classes=classes,
        scores=[score(counts, classes, split="test", facts=facts)],
        areas=areas_of(classes, split="test", gsd=None, counts=counts, facts=facts),
    )
    page = read_page(evaluation_page(findings))
    # Class, mapped, estimated, interval (clusters that are alike have none), labelled.
    rows = [row[:5] for row in page.rows]
    assert ["a", "950", "1,000", "-", "1,000"] in rows
    assert "cannot but agree" in page.text
    unseen = areas_of(classes, split="test", gsd=None, counts=counts)
    others = read_page(evaluation_page(dataclasses.replace(findings, areas=unseen)))
    assert "cannot but agree" not in others.text


def test_the_reliability_tells_what_the_temperature_did(pages):
    state = CASES["everything"].reliability
    rows = [row[:3] for row in pages["everything"].rows]
    for row in (("val, before", "1.000"), ("val, after", "1.250"), ("test, evaluated", "1.250")):
        assert [*row, f"{100 * state.ece:.1f}"] in rows
    assert "softened the scores" in pages["everything"].text


def test_each_predicted_class_has_its_own_confidence_and_accuracy(read_page):
    counter = ReliabilityCounter(2)
    labels, guess = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    counter.add(labels, guess, np.array([0.9, 0.5, 0.7, 0.6, 0.5]))
    classes = table_of(["left", "right"])
    findings = Findings(
        title="t",
        classes=classes,
        scores=[score(count_confusion(labels, guess, 2), classes)],
        reliability=counter.overall(),
        by_class=counter.by_class(),
    )
    rows = [row[:3] for row in read_page(evaluation_page(findings)).rows]
    assert ["left", "70.0", "50.0"] in rows and ["right", "60.0", "66.7"] in rows


def test_the_same_findings_give_the_same_bytes():
    assert evaluation_page(everything()) == evaluation_page(everything())


def test_scores_of_known_pixels_appear_as_computed_by_hand(read_page):
    labels = np.repeat([0, 1], [60, 40])
    guess = np.concatenate([np.zeros(50), np.ones(50)]).astype(int)
    classes = table_of(["left", "right"])
    counted = count_confusion(labels, guess, 2)
    page = read_page(
        evaluation_page(Findings(title="t", classes=classes, scores=[score(counted, classes)]))
    )
    # IoU 50/60 and 40/50, precision 1 and 0.8, recall 50/60 and 1.
    rows = [row[:5] for row in page.rows]
    assert ["left", "83.3", "90.9", "100.0", "83.3"] in rows
    assert ["right", "80.0", "88.9", "80.0", "100.0"] in rows
