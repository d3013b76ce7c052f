import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from cvmh.plots import (
    ClassBar,
    IntervalBar,
    class_bars,
    interval_bars,
    reliability_diagram,
    training_diagram,
)

HOSTILE = '<script>"$x$" & co'
BARS = [
    ClassBar(name="tree", rgb=(0, 255, 0), iou=0.25, f1=0.4),
    ClassBar(name=HOSTILE, rgb=(12, 34, 56), iou=None, f1=None),
]
AREAS = [
    IntervalBar(name="tree", rgb=(0, 255, 0), mapped=10, estimate=12, low=8, high=16),
    IntervalBar(name=HOSTILE, rgb=(1, 2, 3), mapped=5, estimate=None, low=None, high=None),
]
ROWS = [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0, "val_miou": 0.5}]
BINS = {"confidence": [None, 0.5, 0.9], "accuracy": [None, 0.4, 0.8], "counts": [0, 10, 30]}


def draw_all(name="n"):
    return {
        "bars": class_bars(BARS, mean=0.25, name=name),
        "areas": interval_bars(AREAS, unit="ha", name=name),
        "training": training_diagram(ROWS, name=name),
        "reliability": reliability_diagram(**BINS, name=name, alt=f"ECE {HOSTILE}"),
    }


@pytest.fixture(scope="module")
def drawn():
    return draw_all()


@pytest.mark.parametrize("kind", ["bars", "areas", "training", "reliability"])
def test_a_diagram_is_one_element_with_a_label_and_needs_nothing_else(drawn, kind):
    root = ElementTree.fromstring(drawn[kind])
    assert root.tag == "svg"
    assert root.attrib["role"] == "img" and len(root.attrib["aria-label"]) > 10
    assert "http" not in drawn[kind] and "<script" not in drawn[kind]
    links = re.findall(r'(?:url\(|href=")([^)"]*)', drawn[kind])
    assert links and all(link.startswith("#n-") for link in links)
    ids = re.findall(r'\bid="([^"]*)"', drawn[kind])
    assert len(ids) == len(set(ids)) and {link[1:] for link in links} <= set(ids)


def test_names_of_classes_stay_text_whatever_is_in_them(drawn):
    texts = [element.text for element in ElementTree.fromstring(drawn["bars"]).iter("text")]
    assert {"tree", HOSTILE, "25.0", "40.0", "-"} <= set(texts)


def test_long_names_lose_their_middle_but_not_in_words():
    names = [f"{'a very long name of a class ' * 2}{number}" for number in range(2)]
    bars = [ClassBar(name=name, rgb=(1, 2, 3), iou=0.5, f1=0.6) for name in names]
    svg = class_bars(bars, mean=0.5, name="n")
    texts = {element.text or "" for element in ElementTree.fromstring(svg).iter("text")}
    assert len({text for text in texts if "\u2026" in text}) == 2
    assert max(map(len, texts)) < 80
    assert all(name in svg for name in names)


def test_bars_are_as_long_as_their_scores_and_have_the_colours_of_their_classes(drawn):
    found = re.findall(
        r'd="M ([\d.]+) [\d.]+ L ([\d.]+) [^"]*" [^>]*style="fill: #00ff00(; opacity: 0.45)?',
        drawn["bars"],
    )
    lengths = [float(stop) - float(start) for start, stop, _ in found]
    assert lengths[1] / lengths[0] == pytest.approx(0.4 / 0.25, rel=1e-3)


def test_the_text_takes_the_colour_of_the_page(drawn):
    for svg in drawn.values():
        assert "currentColor" in svg and "#010203" not in svg
        assert not re.search(r"fill: (#000000|black|#ffffff|white)[^>]*>[A-Za-z]", svg)


def test_the_same_values_give_the_same_bytes_whatever_the_settings_of_the_user(drawn):
    assert draw_all() == drawn
    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "svg.fonttype": "path"}):
        assert draw_all() == drawn
        # And the user's settings are not changed.
        assert matplotlib.rcParams["font.size"] == 20


def test_reliability_without_pixels_is_a_diagram_too():
    empty = [None] * 15
    svg = reliability_diagram(empty, empty, [0] * 15, name="n", alt="nothing was counted")
    assert ElementTree.fromstring(svg).tag == "svg"


def test_many_classes_make_a_tall_diagram():
    heights = []
    for count in (2, 16):
        svg = class_bars([BARS[0]] * count, mean=None, name="n")
        heights.append(float(re.search(r'height="([\d.]+)pt"', svg)[1]))
    assert np.diff(heights)[0] > 300
