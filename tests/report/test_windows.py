"""The worst and best windows against all windows of a scene at once."""

from pathlib import Path

import numpy as np
import pytest

from cvmh.datasets import LabelledImage
from cvmh.geo.tiling import Window
from cvmh.report.observing import Block
from cvmh.report.windows import ExtremeWindows

IMAGE = LabelledImage(stem="s", image=Path("s.tif"), label=Path("l.tif"), split="val")


def show(windows, truth, guess, *, rows=512, image=IMAGE):
    """Show a scene block by block, as an evaluation does."""
    height, width = truth.shape
    for row in range(0, height, rows):
        part = slice(row, min(height, row + rows))
        block = Block(
            image=image,
            window=Window(row, 0, part.stop - row, width),
            truth_HW=truth[part],
            guess_HW=guess[part],
            confidence_HW=np.full(truth[part].shape, np.nan, np.float32),
        )
        windows.add(block)


def scene(shares, *, side=256, classes=3, seed=0):
    """Return a label and a mask of squares, of each of which a share is wrong."""
    rng = np.random.default_rng(seed)
    rows, columns = np.array(shares).shape
    truth = rng.integers(classes, size=(rows * side, columns * side)).astype(np.uint8)
    guess = truth.copy()
    for row, column in np.ndindex(rows, columns):
        square = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        wrong = rng.permutation(side * side) < round(shares[row][column] * side * side)
        guess[square] = (truth[square] + wrong.reshape(side, side)) % classes
    return truth, guess


def places(found):
    return [(one.window.row // 256, one.window.column // 256) for one in found]


def test_the_worst_and_the_best_come_in_order_whatever_the_blocks():
    shares = np.random.default_rng(1).permutation(24).reshape(4, 6) / 30
    truth, guess = scene(shares)
    order = [divmod(int(place), 6) for place in np.argsort(shares.ravel())]
    for rows in (256, 512, 1024):
        windows = ExtremeWindows(num_worst=4, num_best=3)
        show(windows, truth, guess, rows=rows)
        assert places(windows.worst) == order[::-1][:4]
        assert places(windows.best) == order[:3]
        assert [one.wrong for one in windows.worst] == pytest.approx(
            sorted(shares.ravel())[::-1][:4], abs=1e-4
        )
    np.testing.assert_array_equal(
        windows.worst[0].truth_HW,
        truth[windows.worst[0].window.rows, windows.worst[0].window.columns],
    )


def test_no_more_windows_are_kept_than_are_shown_later():
    truth, guess = scene(np.random.default_rng(2).random((8, 8)))
    windows = ExtremeWindows(num_worst=2, num_best=1)
    show(windows, truth, guess)
    assert len(windows._worst) == 2 and len(windows._best) == 3
    # Nothing holds on to the blocks, which are larger.
    assert all(one.truth_HW.base is None for one in windows.worst + windows.best)


def test_windows_that_are_mostly_unlabelled_are_passed_over():
    truth, guess = scene([[0.9, 0.5, 0.1]])
    truth[:129, :256] = 255
    truth[:127, 256:512] = 255
    windows = ExtremeWindows()
    show(windows, truth, guess)
    assert places(windows.worst) == [(0, 1), (0, 2)]
    assert windows.worst[0].wrong == pytest.approx(0.5, abs=0.01)


def test_a_window_is_not_among_the_worst_and_the_best():
    truth, guess = scene([[0.1, 0.2, 0.3]])
    windows = ExtremeWindows(num_worst=2, num_best=2)
    show(windows, truth, guess)
    assert places(windows.worst) == [(0, 2), (0, 1)]
    assert places(windows.best) == [(0, 0)]


def test_windows_of_one_class_come_last_among_the_best():
    truth, guess = scene([[0.3, 0.2, 0.4, 0.6]])
    truth[:, :256] = guess[:, :256] = 1
    windows = ExtremeWindows(num_worst=1, num_best=3)
    show(windows, truth, guess)
    assert places(windows.best) == [(0, 1), (0, 2), (0, 0)]
    assert not windows.best[2].is_mixed and windows.best[0].is_mixed


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (63, 700), (300, 255), (700, 640), (1050, 90)]
)
def test_every_pixel_of_odd_scenes_is_in_one_window_but_few_last_rows(height, width):
    truth = np.zeros((height, width), np.uint8)
    windows = ExtremeWindows(num_worst=100, num_best=0)
    show(windows, truth, truth)
    seen = np.zeros((height, width), int)
    for one in windows.worst:
        seen[one.window.rows, one.window.columns] += 1
    passed_over = height % 512 if height > 512 and height % 512 < 64 else 0
    assert (seen[: height - passed_over] == 1).all() and not seen[height - passed_over :].any()
    assert all(one.window.height <= 384 and one.window.width <= 384 for one in windows.worst)


def test_the_worst_mistake_is_the_pair_of_classes_with_the_most_pixels():
    truth, guess = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    truth[0], guess[1], guess[2:4] = 255, 1, 2
    windows = ExtremeWindows(num_worst=1, num_best=0)
    show(windows, truth, guess)
    label, prediction, share = windows.worst[0].worst_mistake()
    assert (label, prediction) == (0, 2) and share == pytest.approx(20 / 90)
    right = ExtremeWindows(num_worst=1)
    show(right, truth, truth)
    assert right.worst[0].worst_mistake() is None


def test_equal_windows_are_kept_in_the_order_in_which_they_came():
    truth, guess = scene(np.zeros((2, 4)))
    windows = ExtremeWindows(num_worst=3, num_best=3)
    show(windows, truth, guess)
    assert places(windows.worst) == [(0, 0), (0, 1), (0, 2)]
    assert places(windows.best) == [(0, 3), (1, 0), (1, 1)]
