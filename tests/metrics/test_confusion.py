import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from cvmh.classes import ISPRS, ClassTable
from cvmh.errors import ConfigError, ShapeError
from cvmh.metrics import Facts, Scores, count_confusion, score

IDS = range(len(ISPRS))


def make_ids(seed, *, dtype="uint8"):
    """Labels with ignored pixels, and predictions that are right more often than not."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(ISPRS), (37, 41))
    guesses = np.where(
        generator.random(labels.shape) < 0.6, labels, generator.integers(0, len(ISPRS), (37, 41))
    )
    return (
        np.where(generator.random(labels.shape) < 0.1, 255, labels).astype(dtype),
        guesses.astype(dtype),
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_the_counts_are_those_of_scikit_learn_without_the_ignored_pixels(dtype):
    labels, guesses = make_ids(0, dtype=dtype)
    counted = labels != 255
    expected = confusion_matrix(labels[counted], guesses[counted], labels=IDS)
    found = count_confusion(labels, guesses, len(ISPRS))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64


@pytest.mark.parametrize("seed", range(3))
def test_the_scores_are_those_of_scikit_learn(seed):
    labels, guesses = make_ids(seed)
    truth, guess = labels[labels != 255], guesses[labels != 255]
    found = score(count_confusion(labels, guesses, len(ISPRS)), ISPRS)
    for name, function in {
        "iou": jaccard_score,
        "f1": f1_score,
        "precision": precision_score,
        "recall": recall_score,
    }.items():
        expected = function(truth, guess, labels=IDS, average=None)
        rows = [getattr(found.classes[c.name], name) for c in ISPRS]
        np.testing.assert_allclose(rows, expected, rtol=1e-12)
    assert found.miou == pytest.approx(jaccard_score(truth, guess, average="macro"), rel=1e-12)
    assert found.mf1 == pytest.approx(f1_score(truth, guess, average="macro"), rel=1e-12)
    assert found.oa == pytest.approx(accuracy_score(truth, guess), rel=1e-12)
    assert [found.classes[c.name].pixels for c in ISPRS] == np.bincount(truth).tolist()


ids = hnp.arrays(np.uint8, st.integers(1, 60), elements=st.sampled_from([0, 1, 2, 3, 4, 5, 255]))


@settings(deadline=None)
@given(labels=ids, seed=st.integers(0, 2**31), left_out=st.sets(st.integers(0, 4)))
def test_whatever_classes_occur_the_scores_are_those_of_scikit_learn(labels, seed, left_out):
    rng = np.random.default_rng(seed)
    guesses = np.where(rng.random(labels.shape) < 0.5, labels, rng.integers(0, 6, labels.shape))
    guesses[guesses == 255] = 5
    truth, guess = labels[labels != 255], guesses[labels != 255]
    names = tuple(ISPRS.names[i] for i in sorted(left_out))
    facts = Facts(left_out=names, uncounted=names)
    found = score(count_confusion(labels, guesses, 6), ISPRS, facts=facts)
    kept = [i for i in IDS if i not in left_out]
    present = [i for i in kept if i in truth or i in guess]
    assert [i for i in kept if found.classes[ISPRS.names[i]].iou is not None] == present
    if present:
        macro = {"labels": present, "average": "macro", "zero_division": 0}
        assert found.miou == pytest.approx(jaccard_score(truth, guess, **macro), abs=1e-9)
        assert found.mf1 == pytest.approx(f1_score(truth, guess, **macro), abs=1e-9)
    else:
        assert (found.miou, found.mf1) == (None, None)
    counted = np.isin(truth, kept)
    truth, guess = truth[counted], guess[counted]
    if not truth.size:
        assert (found.oa, found.kappa) == (None, None)
        return
    assert found.oa == pytest.approx(accuracy_score(truth, guess), abs=1e-9)
    if len(set(truth) | set(guess)) == 1:
        # All agree, and could not have done otherwise.
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(truth, guess, labels=IDS), abs=1e-9)


def test_kappa_of_more_pixels_than_a_machine_integer_squares_is_exact():
    many = 4_000_000_000
    counts = np.array([[many, many // 4], [many // 2, many]], dtype=np.int64)
    found = score(counts, ClassTable(ISPRS.classes[:2]))
    total, chance = 2.75, (1.25 * 1.5 + 1.5 * 1.25) / 2.75
    assert found.kappa == pytest.approx((2 - chance) / (total - chance), rel=1e-12)


def test_a_class_that_the_means_leave_out_still_counts_as_an_error_of_the_others():
    # Two pixels of clutter, one of them taken for a car.
    labels = np.array([4, 4, 5, 5], dtype=np.uint8)
    counts = count_confusion(labels, np.array([4, 4, 4, 5], dtype=np.uint8), 6)
    without = score(counts, ISPRS, facts=Facts(left_out=("clutter",)))
    assert (without.miou, without.mf1, without.oa) == (2 / 3, pytest.approx(0.8), 0.75)
    assert without.classes["clutter"].iou == 0.5
    neither = score(counts, ISPRS, facts=Facts(left_out=("clutter",), uncounted=("clutter",)))
    assert (neither.miou, neither.oa) == (2 / 3, 1.0)


def test_means_of_no_class_are_refused():
    with pytest.raises(ConfigError, match=r"must be left with a class, but impervious, building"):
        score(
            np.zeros((2, 2), int),
            ClassTable(ISPRS.classes[:2]),
            facts=Facts(left_out=tuple(ISPRS.names[:2])),
        )


def test_labels_are_rows_and_predictions_columns():
    labels = np.array([[0, 0, 1]], dtype=np.uint8)
    guesses = np.array([[0, 2, 2]], dtype=np.uint8)
    assert count_confusion(labels, guesses, 3).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_a_class_that_occurs_nowhere_has_no_score_and_no_part_in_the_means():
    labels = np.array([0, 0, 1, 1], dtype=np.uint8)
    guesses = np.array([0, 0, 1, 2], dtype=np.uint8)
    found = score(count_confusion(labels, guesses, len(ISPRS)), ISPRS)
    rows = [found.classes[c.name] for c in ISPRS]
    assert [row.iou for row in rows] == [1.0, 0.5, 0.0, None, None, None]
    assert [row.f1 for row in rows] == [1.0, pytest.approx(2 / 3), 0.0, None, None, None]
    # Predicted but never labelled: no recall. Labelled but never predicted would be no precision.
    assert (rows[2].precision, rows[2].recall) == (0.0, None)
    assert found.miou == pytest.approx(0.5)
    assert found.mf1 == pytest.approx((1 + 2 / 3) / 3)
    assert found.oa == 0.75


def test_without_any_label_there_is_no_score():
    labels = np.full((4, 5), 255, dtype=np.uint8)
    found = score(count_confusion(labels, np.zeros_like(labels), len(ISPRS)), ISPRS)
    assert (found.miou, found.mf1, found.oa) == (None, None, None)
    assert not np.any(found.confusion)
    assert {row.pixels for row in found.classes.values()} == {0}


def test_no_pixel_at_all_gives_a_matrix_of_zeros():
    empty = np.zeros((0, 3), dtype=np.uint8)
    assert count_confusion(empty, empty, 2).tolist() == [[0, 0], [0, 0]]


def test_counts_of_parts_add_up_to_those_of_the_whole():
    labels, guesses = make_ids(4)
    parts = [count_confusion(labels[r], guesses[r], 6) for r in (slice(0, 11), slice(11, None))]
    np.testing.assert_array_equal(sum(parts), count_confusion(labels, guesses, 6))


@pytest.mark.parametrize("ignored", [-1, -100, 6, 255])
def test_labels_that_are_no_class_id_do_not_count(ignored):
    labels = np.array([0, ignored, 5], dtype=np.int64)
    found = count_confusion(labels, np.array([0, 3, 4]), len(ISPRS))
    assert found.sum() == 2
    assert found[0, 0] == found[5, 4] == 1


@pytest.mark.parametrize("wrong", [-1, 6, 255])
def test_a_labelled_pixel_without_a_predicted_class_is_an_error(wrong):
    labels, guesses = np.array([0, 1]), np.array([0, wrong])
    with pytest.raises(ShapeError, match=rf"must have a predicted class 0\.\.5, got {wrong}$"):
        count_confusion(labels, guesses, len(ISPRS))


def test_an_ignored_pixel_may_be_without_a_predicted_class():
    labels = np.array([0, 255], dtype=np.uint8)
    assert count_confusion(labels, np.array([0, 255], dtype=np.uint8), 6).sum() == 1


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(3, 2\)"):
        count_confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), 6)


def test_scores_survive_json():
    labels, guesses = make_ids(5)
    two = ClassTable(ISPRS.classes[:2])
    confusion = count_confusion(np.minimum(labels, 1), np.minimum(guesses, 1), 2)
    found = score(confusion, two, protocol="eroded", split="test")
    content = found.to_json()
    assert (content["protocol"], content["split"]) == ("eroded", "test")
    assert content["confusion"] == confusion.tolist()
    assert Scores.model_validate(content) == found
