from functools import cache

import numpy as np
import pytest

from cvmh.classes import ISPRS, NODATA_ID
from cvmh.datasets.synthetic import SyntheticScene, make_scene, scene_origin
from cvmh.errors import ConfigError

# Least share of the valid pixels, by class id: cars are small, clutter and trees must not be rare.
LEAST_SHARES = (0.15, 0.03, 0.10, 0.08, 0.014, 0.04)
SEEDS = (0, 1, 2, 3, 11)


@cache
def scene_of(seed: int) -> SyntheticScene:
    return make_scene(seed)


def shares_of(scene: SyntheticScene) -> np.ndarray:
    counts = np.bincount(scene.labels[scene.validity], minlength=len(ISPRS))
    return counts / scene.validity.sum()


@pytest.mark.parametrize("shape", [(96, 128), (301, 203)])
def test_the_same_seed_gives_the_same_scene(shape):
    height, width = shape
    first, second = (make_scene(5, height=height, width=width) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.validity, second.validity)


def test_different_seeds_give_different_scenes():
    for one, other in [(0, 1), (1, 2), (2, 3)]:
        first, second = scene_of(one), scene_of(other)
        assert (first.labels != second.labels).mean() > 0.3
        assert np.abs(shares_of(first) - shares_of(second)).sum() > 0.02
        assert (first.validity != second.validity).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_has_its_share_of_a_large_scene(seed):
    shares = shares_of(scene_of(seed))
    assert len(shares) == len(ISPRS)
    assert (shares >= LEAST_SHARES).all(), shares


@pytest.mark.parametrize(
    ("height", "width", "gsd"),
    [
        (64, 96, 0.25),
        (33, 32, 0.25),
        (101, 257, 0.1),
        (255, 63, 0.5),
        (64, 64, 1.0),
        (40, 300, 0.05),
    ],
)
def test_any_size_keeps_the_promises_on_nodata(height, width, gsd):
    for seed in (0, 4):
        scene = make_scene(seed, height=height, width=width, gsd=gsd)
        assert scene.image.shape == (3, height, width)
        assert scene.labels.shape == scene.validity.shape == (height, width)
        assert (scene.image.dtype, scene.labels.dtype) == (np.uint8, np.uint8)
        assert scene.gsd == gsd
        np.testing.assert_array_equal(scene.labels == NODATA_ID, ~scene.validity)
        np.testing.assert_array_equal((scene.image == 0).all(axis=0), ~scene.validity)
        assert scene.image[:, scene.validity].min() >= 1
        assert scene.labels[scene.validity].max() < len(ISPRS)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_oblique_corner_has_no_data(seed):
    validity = scene_of(seed).validity
    corners = [bool(validity[row, col]) for row in (0, -1) for col in (0, -1)]
    assert corners.count(False) == 1
    assert 0.005 < (~validity).mean() < 0.2
    # Oblique: the edge moves along from row to row.
    per_row = (~validity).sum(axis=1)
    assert len(np.unique(per_row[per_row > 0])) > 10


def test_ground_is_darker_on_one_side_of_buildings():
    """The brightness around roofs depends on the direction: there are shadows, from one sun."""
    for seed in (0, 1, 3):
        scene = scene_of(seed)
        grey = scene.image.mean(axis=0)
        is_roof = scene.labels == ISPRS.names.index("building")
        is_ground = np.isin(scene.labels, (0, 2))
        means = []
        for down, right in [(0, 12), (12, 12), (12, 0), (12, -12), (0, -12), (-12, -12), (-12, 0)]:
            beside = np.roll(is_roof, (down, right), axis=(0, 1)) & ~is_roof & is_ground
            means.append(grey[beside].mean())
        assert min(means) < 0.8 * max(means)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="seed must be 0 or more, got -1"):
        make_scene(-1)
    with pytest.raises(ConfigError, match="height must be 32 to 4096, got 31"):
        make_scene(0, height=31)
    with pytest.raises(ConfigError, match="width must be 32 to 4096, got 4097"):
        make_scene(0, width=4097)
    with pytest.raises(ConfigError, match="gsd must be"):
        make_scene(0, gsd=0.0)


def test_origins_are_distinct_and_further_apart_than_the_largest_scene():
    places = {scene_origin(seed) for seed in range(36_000)}
    assert len(places) == 36_000
    for axis in (0, 1):
        steps = np.diff(np.unique([place[axis] for place in places]))
        assert steps.min() >= 4096.0
    eastings, northings = zip(*places, strict=True)
    assert 166_000 < min(eastings) and max(eastings) + 4096 < 834_000
    assert 0 < min(northings) - 4096 and max(northings) < 9_300_000


def test_a_seed_without_a_place_is_refused():
    with pytest.raises(ConfigError, match="to have a place, got 36000"):
        scene_origin(36_000)
