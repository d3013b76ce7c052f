"""The example of docs/tsm2.md in a small form: made series, baselines, a network that learns."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("made_series", "tsm2_example")


@pytest.fixture
def tools(monkeypatch):
    """Return a function that gives a module of tools/, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: __import__(name)
    for name in NAMES:
        sys.modules.pop(name, None)


def printed(tools, monkeypatch, capsys, *words):
    """Run the tool and return the numbers of its table by the names of rows, in order."""
    monkeypatch.setattr(sys, "argv", ["tsm2_example.py", *words, "--threads", "1"])
    tools("tsm2_example").main()
    # After a line about the network, and the head of the table.
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    return {name: [float(cell) for cell in cells] for name, *cells in rows}


def test_made_series_have_gaps_seasons_and_rotating_crops_and_come_from_their_seed(tools):
    make = tools("made_series").make_pixels
    pixels = make(60, years=3, seed=5)
    assert pixels.index.shape == (60, 2, 108) and pixels.temperature.shape == (60, 1, 108)
    share = np.isnan(pixels.index).mean()
    assert 0.3 < share < 0.6
    by_step = np.nanmean(pixels.index[:, 0], axis=0).reshape(3, 36).mean(axis=0)
    assert by_step[18] > by_step[0] + 0.2
    fields = pixels.cover[:, 0] < 3
    assert (np.diff(pixels.cover[fields]) % 3 == 1).all()
    assert (np.diff(pixels.cover[~fields]) == 0).all()
    again, other = make(60, years=3, seed=5), make(60, years=3, seed=6)
    np.testing.assert_array_equal(again.index, pixels.index)
    assert not np.array_equal(other.temperature, pixels.temperature)


def test_gaps_are_filled_by_straight_lines(tools):
    series = np.array([[np.nan, 1.0, np.nan, 3.0, np.nan], [np.nan] * 5])
    assert tools("tsm2_example").fill(series).tolist() == [[1, 1, 2, 3, 3], [0] * 5]


def test_a_window_of_the_example_continues_in_its_answer(tools):
    example = tools("tsm2_example")
    samples = example.cut_windows("val", 20, 0)
    pixels = tools("made_series").make_pixels(20, years=4, seed=1)
    joined = np.concatenate([samples.series, samples.wanted], axis=2)
    assert joined.shape == (40, 2, 84)
    for row in range(40):
        starts = [
            start
            for start in range(4 * 36 - 84 + 1)
            if np.array_equal(
                pixels.index[row % 20, :, start : start + 84], joined[row], equal_nan=True
            )
        ]
        assert len(starts) == 1
        warmth = pixels.temperature[row % 20, :, starts[0] : starts[0] + 72]
        np.testing.assert_allclose(example.scaled_warmth(warmth), samples.varying[row])


@pytest.mark.slow
def test_a_forecast_beats_the_last_value_and_the_year_before(tools, monkeypatch, capsys):
    words = ["--task", "forecast", "--pixels", "400", "--epochs", "6"]
    scores = printed(tools, monkeypatch, capsys, *words)
    assert list(scores) == ["last value", "a year before", "linear regression", "TSM2"]
    for rival in ("last value", "a year before"):
        assert scores["TSM2"] < scores[rival]


@pytest.mark.slow
def test_crops_are_told_apart_better_than_by_the_nearest_centroid(tools, monkeypatch, capsys):
    words = ["--task", "classify", "--pixels", "800", "--epochs", "8"]
    scores = printed(tools, monkeypatch, capsys, *words)
    assert list(scores) == ["nearest centroid", "logistic regression", "TSM2"]
    assert scores["TSM2"] > scores["nearest centroid"]
