"""Area estimates against the worked example of Olofsson et al. 2014, formulas and simulations."""

import json

import numpy as np
import pytest

from cvmh.errors import ShapeError
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.areas import estimate_areas

# Olofsson et al. 2014, section 5: rows are mapped classes, columns reference classes.
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
PAPER = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 900.0
HECTARE = 10_000
# Area and half of its interval in ha, as printed.
AREAS = [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
USERS = [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
PRODUCERS = [0.75, 0.85, 0.93, 0.96]


def half(interval):
    return (interval.high - interval.low) / 2


def test_the_worked_example_of_the_paper_comes_out():
    found = estimate_areas(MAPPED, PAPER.T, NAMES)
    for name, area, users, producers in zip(NAMES, AREAS, USERS, PRODUCERS, strict=True):
        row = found.classes[name]
        assert row.area.estimate / HECTARE == pytest.approx(area[0], abs=0.5)
        assert half(row.area) / HECTARE == pytest.approx(area[1], abs=1)
        assert row.users_accuracy.estimate == pytest.approx(users[0], abs=0.005)
        assert 1.96 * row.users_accuracy.error == pytest.approx(users[1], abs=0.006)
        assert row.producers_accuracy.estimate == pytest.approx(producers, abs=0.005)
    assert found.overall_accuracy.estimate == pytest.approx(0.95, abs=0.005)
    assert 1.96 * found.overall_accuracy.error == pytest.approx(0.02, abs=0.006)
    assert (found.pixels, found.clusters) == (640, None)
    assert sum(row.area.estimate for row in found.classes.values()) == pytest.approx(MAPPED.sum())


def test_one_pixel_a_cluster_is_the_formula_of_the_paper_but_for_the_divisor():
    """Equations 5 to 7 and 10, written out once more; strata of n pixels differ by n / (n - 1)."""
    large = PAPER * 400
    cells = np.repeat(np.arange(16), large.ravel())
    alone = np.zeros((len(cells), 4, 4))
    alone[np.arange(len(cells)), cells // 4, cells % 4] = 1
    one = estimate_areas(MAPPED, alone.swapaxes(1, 2), NAMES)
    rows = large.sum(axis=1, keepdims=True)
    shares, weights = large / rows, MAPPED / MAPPED.sum()
    area = np.sqrt((weights[:, None] ** 2 * shares * (1 - shares) / (rows - 1)).sum(axis=0))
    users = np.sqrt(np.diag(shares) * (1 - np.diag(shares)) / (rows[:, 0] - 1))
    overall = np.sqrt((weights**2 * users**2).sum())
    for number, name in enumerate(NAMES):
        row = one.classes[name]
        assert row.area.error == pytest.approx(area[number] * MAPPED.sum(), rel=1e-4)
        assert row.users_accuracy.error == pytest.approx(users[number], rel=1e-4)
        column = weights * shares[:, number]
        recall = column[number] / column.sum()
        others = np.delete(weights**2 * shares[:, number] * (1 - shares[:, number]), number)
        parts = (weights[number] * (1 - recall) * users[number]) ** 2 + recall**2 * (
            others / (np.delete(rows[:, 0], number) - 1)
        ).sum()
        assert row.producers_accuracy.error == pytest.approx(
            np.sqrt(parts) / column.sum(), rel=1e-4
        )
    assert one.overall_accuracy.error == pytest.approx(overall, rel=1e-4)
    assert one.clusters == len(cells)


# A mask that is wrong in a class-dependent way: shares by mapped (rows) and true class.
TRUTH = np.array([[0.50, 0.04, 0.02], [0.03, 0.25, 0.02], [0.01, 0.01, 0.12]])
TRIALS = 600


def covers(sample, truth=TRUTH):
    """Return which of the intervals of three areas hold the true ones."""
    found = estimate_areas(TRUTH.sum(axis=1), sample.swapaxes(-1, -2), ("a", "b", "c"))
    areas = [row.area for row in found.classes.values()]
    return [one.low <= true <= one.high for one, true in zip(areas, truth.sum(axis=0), strict=True)]


def test_intervals_of_pixels_drawn_one_by_one_hold_the_truth_in_95_of_100_trials():
    rng = np.random.default_rng(1)
    samples = rng.multinomial(900, TRUTH.ravel(), size=TRIALS).reshape(TRIALS, 3, 3)
    share = np.mean([covers(sample) for sample in samples], axis=0)
    assert np.all(np.abs(share - 0.95) < 0.03)


def draw_clusters(rng, num_clusters, num_pixels):
    """Return counts (clusters, 3, 3) of images that differ from each other in all they hold."""
    mixes = rng.dirichlet(TRUTH.ravel() * 8, size=num_clusters)
    return np.array([rng.multinomial(num_pixels, mix).reshape(3, 3) for mix in mixes])


def test_intervals_of_clusters_hold_the_truth_where_those_of_their_pixels_do_not():
    rng = np.random.default_rng(2)
    samples = [draw_clusters(rng, 40, 4000) for _ in range(TRIALS)]
    by_cluster = np.mean([covers(sample) for sample in samples], axis=0)
    by_pixel = np.mean([covers(sample.sum(axis=0)) for sample in samples], axis=0)
    # The linearised variance is somewhat small with few clusters of a rare class.
    assert np.all(by_cluster > 0.90) and np.all(by_cluster < 0.99)
    assert np.all(by_pixel < 0.3)


def test_more_pixels_of_the_same_clusters_do_not_narrow_the_intervals():
    clusters = draw_clusters(np.random.default_rng(3), 30, 500).swapaxes(1, 2)
    few = estimate_areas(TRUTH.sum(axis=1), clusters, ("a", "b", "c"))
    many = estimate_areas(TRUTH.sum(axis=1), clusters * 1000, ("a", "b", "c"))
    for name in few.classes:
        assert many.classes[name].area.error == pytest.approx(few.classes[name].area.error)
        assert many.classes[name].area.high == pytest.approx(few.classes[name].area.high)


def test_a_class_mapped_nowhere_still_gets_the_area_that_other_classes_took_from_it():
    sample = np.array([[80, 0], [20, 0]])
    found = estimate_areas([100.0, 0.0], sample, ("a", "b"))
    assert found.classes["b"].area.estimate == pytest.approx(20)
    assert found.classes["b"].area.error > 0
    assert found.classes["b"].mapped == 0
    assert found.classes["b"].users_accuracy.estimate is None
    assert found.classes["b"].producers_accuracy.estimate == 0


@pytest.mark.parametrize("pixels", [0, 1])
def test_a_mapped_class_that_the_sample_lacks_leaves_all_areas_unknown(pixels):
    sample = np.array([[90, 5, 0], [5, 90, 0], [0, 0, pixels]])
    found = estimate_areas([50.0, 45.0, 5.0], sample, ("a", "b", "c"))
    assert all(row.area.estimate is None for row in found.classes.values())
    assert found.overall_accuracy.estimate is None
    assert found.classes["a"].users_accuracy.estimate == pytest.approx(90 / 95)
    assert found.classes["c"].users_accuracy.estimate is None
    assert found.notes[0] == (
        "5.00% of the mask is c, which the network gave to fewer than 2 pixels of the sample, so "
        "no area can be estimated"
    )


def test_specks_of_a_class_that_the_sample_lacks_widen_the_upper_limits_only():
    sample = np.array([[90, 5, 0], [5, 90, 0], [0, 0, 0]])
    specks = estimate_areas([50.0, 49.5, 0.5], sample, ("a", "b", "c"))
    without = estimate_areas([50.0, 49.5], sample[:2, :2], ("a", "b"))
    for name in ("a", "b"):
        one, other = specks.classes[name].area, without.classes[name].area
        assert (one.estimate, one.error, one.low) == (other.estimate, other.error, other.low)
        assert one.high == pytest.approx(other.high + 0.5)
    assert "only in the upper limits" in specks.notes[0]
    assert specks.classes["c"].area.estimate is None
    assert specks.notes[1].startswith("no pixel of the sample is labelled c")


def test_a_class_that_one_image_alone_holds_is_not_sampled():
    clusters = np.zeros((5, 2, 2), dtype=int)
    clusters[:, 0, 0] = 100
    clusters[2, 1, 1], clusters[2, 0, 1] = 50, 10
    found = estimate_areas([80.0, 20.0], clusters, ("a", "b"))
    assert found.classes["a"].area.estimate is None
    assert "fewer than 2 clusters of the sample" in found.notes[0]


def test_without_any_error_in_the_sample_there_is_an_area_but_no_interval():
    found = estimate_areas([60.0, 40.0], np.array([[70, 0], [0, 30]]), ("a", "b"))
    assert found.classes["a"].area.estimate == pytest.approx(60)
    assert found.classes["a"].area.error is None
    assert found.classes["a"].area.high is None
    assert found.overall_accuracy.estimate == 1


@pytest.mark.parametrize("shape", [(3, 3), (4, 3, 3)])
def test_an_empty_sample_or_mask_gives_nothing(shape):
    nothing = np.zeros(shape, dtype=int)
    found = estimate_areas([1.0, 2.0, 0.0], nothing, ("a", "b", "c"))
    assert all(row.area.estimate is None for row in found.classes.values())
    assert (found.shift, found.pixels) == (None, 0)
    blank = estimate_areas([0.0, 0.0, 0.0], nothing + 5, ("a", "b", "c"))
    assert all(row.area.estimate is None for row in blank.classes.values())
    assert blank.notes == ("the mask has no pixel of any class, so there are no areas",)


def test_ground_unlike_the_sample_is_named():
    sample = np.array([[90, 10], [10, 90]])
    assert estimate_areas([50.0, 50.0], sample, ("a", "b")).notes == ()
    found = estimate_areas([90.0, 10.0], sample, ("a", "b"))
    assert found.shift == pytest.approx(0.4)
    assert "differ in their mix of classes by 40%" in found.notes[0]


def test_limits_stay_within_the_ground():
    found = estimate_areas([99.0, 1.0], np.array([[30, 1], [1, 3]]), ("a", "b"))
    assert found.classes["a"].area.high <= 100
    assert found.classes["b"].area.low >= 0


def test_estimates_are_plain_json():
    found = estimate_areas(MAPPED, PAPER.T, NAMES)
    assert type(found.classes["forest gain"].area.error) is float
    content = json.loads(json.dumps(found.to_json()))
    assert content["classes"]["forest gain"]["area"]["estimate"] == pytest.approx(116_860_000, 1e-3)


def test_a_sample_survives_json():
    counts = draw_clusters(np.random.default_rng(4), 7, 50)
    sample = AreaSample.of(counts, split="val")
    read = AreaSample.model_validate(json.loads(sample.model_dump_json()))
    assert read == sample
    assert np.array_equal(read.counts(3), counts)
    assert np.array_equal(AreaSample.of(counts * 0, split="val").counts(3), counts * 0)
    with pytest.raises(ShapeError, match=r"7 clusters and 2 classes has a cell beyond them"):
        read.counts(2)


@pytest.mark.parametrize(
    ("mapped", "sample", "match"),
    [
        ([1.0], np.ones((2, 2)), r"2 classes need .* got \(1,\) and \(2, 2\)"),
        ([1.0, 1.0], np.ones((3, 3)), r"2 x 2 counts"),
        ([1.0, -1.0], np.ones((2, 2)), r"every mapped area must be a number from 0 on"),
        ([1.0, 1.0], -np.ones((2, 2)), r"every count of a sample must be a number from 0 on"),
        ([1.0, np.nan], np.ones((2, 2)), r"every mapped area"),
    ],
)
def test_what_is_no_sample_is_refused(mapped, sample, match):
    with pytest.raises(ShapeError, match=match):
        estimate_areas(mapped, sample, ("a", "b"))
