"""Splits by area: nothing leaks, shares and classes are about right, and the rest is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from cvmh.classes import ClassTable, SegClass
from cvmh.datasets.blocks import plan_split
from cvmh.datasets.connecting import connect
from cvmh.datasets.doctor.facts import Examination, ImageFacts, LabelFacts, RasterFacts
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.errors import ConfigError, DataError
from cvmh.geo.footprint import Footprint

UTM = CRS.from_epsg(32632)
CLASSES = ClassTable(
    tuple(SegClass(id=n, name=name, rgb=(n, n, n)) for n, name in enumerate(("a", "b", "c")))
)
SIDE = 100


def examined(places, *, counts=None, footprints=True, digests=None):
    """Return an examination of images of 100 x 100 m with their upper left corners at places."""
    images = []
    for number, (x, y) in enumerate(places):
        path = Path(f"images/i{number:03d}.tif")
        entry = LabelledImage(stem=path.stem, image=path, label=path, split="none")
        box = Footprint(UTM, x, y - SIDE, x + SIDE, y, 1.0, 1.0) if footprints else None
        raster = RasterFacts(
            path=path,
            height=SIDE,
            width=SIDE,
            dtypes=("uint8",),
            band_names=("band_1",),
            tagged_alpha=None,
            is_palette=False,
            gsd=1.0,
            footprint=box,
        )
        pixels = [1000, 1000, 1000] if counts is None else counts[number]
        labels = LabelFacts(class_pixels=np.array(pixels, dtype=np.int64))
        facts = ImageFacts(entry=entry, image=raster, label=raster, labels=labels)
        images.append(facts)
    entries = tuple(facts.entry for facts in images)
    data = SegmentationData(name="set", root=Path(), classes=CLASSES, images=entries)
    return Examination(data=data, images=images, bands=None)


def grid(rows, columns, step=SIDE):
    return [(column * step, row * step) for row in range(rows) for column in range(columns)]


def distance(one, other):
    """Return how far two images of 100 m are apart, by their corners alone."""
    across, along = (max(0, abs(a - b) - SIDE) for a, b in zip(one, other, strict=True))
    return (across**2 + along**2) ** 0.5


def touches(one, other):
    return all(abs(a - b) <= SIDE for a, b in zip(one, other, strict=True))


def leaks(places, splits, gap):
    """Return the pairs of images of different splits that touch or are too near."""
    return [
        (one, other)
        for one in range(len(places))
        for other in range(one)
        if splits[one] != splits[other]
        and "unused" not in (splits[one], splits[other])
        and (
            touches(places[one], places[other]) or distance(places[one], places[other]) < gap - 0.51
        )
    ]


place = st.tuples(st.integers(0, 1500), st.integers(0, 1500))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    st.lists(place, min_size=3, max_size=25),
    st.sampled_from([0, 40, 250]),
    st.sampled_from([None, 150, 400]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 3),
)
def test_no_two_splits_are_nearer_than_asked(places, gap, block, test, seed):
    try:
        plan = plan_split(examined(places), test=test, gap=gap, block=block, seed=seed)
    except DataError:
        # All in one group, or nothing left of a split.
        assume(False)
    assert not leaks(places, plan.splits, gap)
    assert {"train", "val"} <= set(plan.splits)
    if block is None:
        assert "unused" not in plan.splits


def test_images_that_touch_stay_together():
    # Two rows of four, far from two single images.
    places = [*grid(2, 4), (2000, 0), (4000, 0)]
    plan = plan_split(examined(places))
    assert plan.num_groups == 3 and plan.in_metres
    assert set(plan.splits[:8]) == {"train"}
    assert sorted(plan.splits[8:]) in (["train", "val"], ["val", "val"])


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.3), (0.5, 0.25)])
def test_shares_of_all_classes_are_near_what_was_asked(val, test):
    generator = np.random.default_rng(1)
    counts = generator.dirichlet([0.5, 0.5, 0.1], size=60) * 10_000
    plan = plan_split(
        examined(grid(6, 10, step=300), counts=counts.astype(int)), val=val, test=test
    )
    total = sum(plan.class_pixels(split) for split in set(plan.splits))
    for split, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        if share:
            assert plan.class_pixels(split).sum() / total.sum() == pytest.approx(share, abs=0.02)
            assert plan.class_pixels(split) / total == pytest.approx(np.full(3, share), abs=0.05)


def test_a_class_that_only_one_image_shows_is_trained_on():
    counts = [[1000, 1000, 0]] * 9 + [[1000, 1000, 500]]
    plan = plan_split(examined(grid(2, 5, step=300), counts=counts))
    assert plan.splits[9] == "train"


def test_the_same_seed_gives_the_same_split_and_another_one_may_differ():
    examination = examined(grid(5, 6, step=300))
    plans = [plan_split(examination, seed=seed).splits for seed in (0, 0, 1, 2, 3)]
    assert plans[0] == plans[1]
    assert len(set(plans)) > 1


def test_what_hangs_together_is_refused_and_blocks_are_suggested():
    message = "the images form 1 group .* give --block with the side of blocks in metres"
    with pytest.raises(DataError, match=message):
        plan_split(examined(grid(5, 5)))


def test_blocks_part_what_hangs_together_and_leave_out_what_lies_between():
    places = grid(12, 12)
    plan = plan_split(examined(places), block=300, val=0.25)
    assert not leaks(places, plan.splits, 0)
    unused, val = plan.splits.count("unused"), plan.splits.count("val")
    assert val / (144 - unused) == pytest.approx(0.25, abs=0.05)
    assert 0 < unused < 72


def test_three_splits_are_parted_by_blocks():
    places = grid(12, 12)
    plan = plan_split(examined(places), block=300, val=0.25, test=0.25)
    used = 144 - plan.splits.count("unused")
    assert plan.splits.count("test") / used == pytest.approx(0.25, abs=0.06)
    assert not leaks(places, plan.splits, 0)


def test_copies_stay_together_wherever_they_lie():
    places = [(0, 0), (1000, 0), (2000, 0), (3000, 0)]
    examination = examined(places, footprints=False)
    for number in (0, 3):
        examination.images[number].digest = "same"
        examination.images[number].bands = SomeBands()
    plan = plan_split(examination, val=0.3)
    assert not plan.in_metres and plan.num_groups == 3
    assert plan.splits[0] == plan.splits[3]


class SomeBands:
    count = np.ones(1)


def test_few_images_without_georeference_are_split_one_by_one():
    plan = plan_split(examined(grid(1, 2), footprints=False), val=0.5)
    assert sorted(plan.splits) == ["train", "val"]


def test_fewer_groups_than_splits_are_refused():
    with pytest.raises(DataError, match=r"form 2 groups .* but 3 splits are wanted"):
        plan_split(examined([(0, 0), (500, 0)]), test=0.2)


@pytest.mark.parametrize(("val", "test"), [(0, 0), (1, 0), (-0.1, 0), (0.5, 0.5), (0.2, -0.1)])
def test_shares_that_make_no_sense_are_refused(val, test):
    with pytest.raises(ConfigError, match="must be above 0 and sum to less than 1"):
        plan_split(examined(grid(1, 3, step=300)), val=val, test=test)


@pytest.mark.parametrize("lengths", [{"gap": -1}, {"block": 0}, {"block": -5}])
def test_lengths_that_make_no_sense_are_refused(lengths):
    with pytest.raises(ConfigError, match="must not be negative"):
        plan_split(examined(grid(1, 3, step=300)), **lengths)


def test_a_gap_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match="too little lies farther than 5000 from the others"):
        plan_split(examined(grid(6, 6)), block=200, gap=5000)


def test_a_set_without_a_labelled_pixel_is_refused():
    nothing = np.zeros((3, 3), dtype=np.int64)
    with pytest.raises(DataError, match="a split needs labelled pixels"):
        plan_split(examined(grid(1, 3, step=300), counts=nothing))


def test_damaged_files_and_strange_labels_are_refused():
    examination = examined(grid(1, 3, step=300))
    examination.images[1].labels.num_unknown = 3
    with pytest.raises(DataError, match=r"label .*i001.tif is not in the classes"):
        plan_split(examination)
    examination.images[0].faults.append((Path("x.tif"), "x.tif is empty"))
    with pytest.raises(DataError, match=r"x\.tif is empty; 'cvmh data doctor' lists"):
        plan_split(examination)


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11))))
def test_groups_are_the_connected_parts(number, pairs):
    pairs = [(a % number, b % number) for a, b in pairs]
    groups = connect(number, pairs)
    # Warshall's closure is the slow form.
    joined = np.eye(number, dtype=bool)
    for one, other in pairs:
        joined[one, other] = joined[other, one] = True
    for middle in range(number):
        joined |= joined[:, [middle]] & joined[[middle], :]
    assert np.array_equal(groups[:, None] == groups, joined)
    assert set(groups) == set(range(groups.max() + 1))
