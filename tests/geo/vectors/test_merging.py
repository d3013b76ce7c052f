"""Small regions join their neighbours: against a slow derivation on the whole array."""

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cvmh.classes import ISPRS
from cvmh.geo.vectors import write_vectors

IDS = st.sampled_from([0, 1, 2, 3, 255])
SIDES = st.integers(1, 14)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape, elements=IDS))


def label(array):
    """Return the regions as lists of pixels in raster order, and the region of each pixel."""
    regions, owner = [], {}
    for class_id in np.unique(array[array != 255]):
        labels, count = ndimage.label(array == class_id)
        regions += [list(map(tuple, np.argwhere(labels == n + 1).tolist())) for n in range(count)]
    for number, pixels in enumerate(regions):
        owner |= dict.fromkeys(pixels, number)
    return regions, owner


def choose(pixels, number, regions, owner):
    """Return the neighbour with the longest border, the first in raster order of equal ones."""
    borders = {}
    for row, column in pixels:
        for beside in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            other = owner.get(beside, number)
            if other != number:
                borders[other] = borders.get(other, 0) + 1
    return max(borders, key=lambda n: (borders[n], [-x for x in regions[n][0]]), default=None)


def sieve(array, min_pixels):
    """Merge one round after another until nothing changes, starting anew from the pixels."""
    array = array.copy()
    while True:
        regions, owner = label(array)
        joins = {}
        for number, pixels in enumerate(regions):
            if len(pixels) < min_pixels:
                chosen = choose(pixels, number, regions, owner)
                if chosen is not None:
                    joins[number] = chosen
        if not joins:
            break
        new = array.copy()
        for number in joins:
            seen = [number]
            while seen[-1] in joins and joins[seen[-1]] not in seen:
                seen.append(joins[seen[-1]])
            end = seen[-1]
            if end in joins:
                # All that hangs together is small.
                together = {n for n in joins if leads_to(n, end, joins)}
                end = min(together, key=lambda n: (-len(regions[n]), regions[n][0]))
            for pixel in regions[number]:
                new[pixel] = array[regions[end][0]]
        array = new
    for pixels in regions:
        if len(pixels) < min_pixels:
            for pixel in pixels:
                array[pixel] = 255
    return array


def leads_to(number, end, joins):
    """Return whether following the pointers from a region comes by another one."""
    seen = set()
    while number in joins and number not in seen:
        if number == end:
            return True
        seen.add(number)
        number = joins[number]
    return False


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    array=MASKS,
    grow=st.integers(1, 2),
    min_pixels=st.integers(2, 30),
    chunk=st.integers(1, 12),
)
def test_small_regions_join_the_neighbour_with_the_longest_border(
    tmp_path, write_mask, read, trace_with_gdal, array, grow, min_pixels, chunk
):
    array = array.repeat(grow, axis=0).repeat(grow, axis=1)
    target = tmp_path / "p.gpkg"
    options = {"simplify": 0, "chunk": chunk, "overwrite": True}
    write_vectors(write_mask(array), target, ISPRS, min_area=min_pixels * 4.0, **options)
    found = read(target, in_pixels=True)
    merged = sieve(array, min_pixels)
    counts = np.bincount(merged.ravel(), minlength=256)[:6] * 4.0
    ids, areas = found.columns["class_id"], found.columns["area_m2"]
    np.testing.assert_array_equal(np.bincount(ids, weights=areas, minlength=6), counts)
    expected = trace_with_gdal(merged)
    assert sorted(areas) == sorted(polygon.area * 4 for _, polygon in expected)
    for class_id, polygon in expected:
        assert any(
            polygon.equals(p) for i, p in zip(ids, found.polygons, strict=True) if i == class_id
        )


def test_what_touches_no_other_class_is_dropped(tmp_path, write_mask, read):
    array = np.full((12, 12), 255, np.uint8)
    array[1:3, 1:3] = 2
    array[5:11, 5:11] = 1
    array[7, 7] = 4
    write_vectors(write_mask(array), tmp_path / "p.gpkg", ISPRS, min_area=20, simplify=0, chunk=5)
    found = read(tmp_path / "p.gpkg", in_pixels=True)
    assert found.columns["class_id"].tolist() == [1]
    assert found.columns["area_m2"].tolist() == [36 * 4.0]
    assert found.polygons[0].equals(shapely.box(5, 5, 11, 11))


def test_no_gap_arises_where_small_regions_were(tmp_path, write_mask, read, draw_blobs):
    array = draw_blobs(5, 300, 280, blob=4, share_nodata=0)
    speckle = np.random.default_rng(0).random(array.shape) < 0.05
    array[speckle] = 5
    write_vectors(write_mask(array), tmp_path / "p.gpkg", ISPRS, min_area=200, chunk=64)
    found = read(tmp_path / "p.gpkg", in_pixels=True)
    assert found.columns["area_m2"].min() >= 200
    assert found.columns["area_m2"].sum() == array.size * 4
    assert shapely.coverage_is_valid(found.polygons)
    assert shapely.union_all(found.polygons).equals(shapely.box(0, 0, 280, 300))


@pytest.mark.parametrize("chunk", [3, 7, 64])
def test_merging_does_not_depend_on_the_chunks(tmp_path, write_mask, read, draw_blobs, chunk):
    array = draw_blobs(6, 70, 60, blob=1, share_nodata=0.1)
    path = write_mask(array)
    found = []
    for side in (1024, chunk):
        write_vectors(
            path,
            tmp_path / "p.gpkg",
            ISPRS,
            min_area=40,
            simplify=0,
            chunk=side,
            overwrite=True,
        )
        polygons = read(tmp_path / "p.gpkg").polygons
        found.append(sorted(shapely.to_wkt(shapely.normalize(polygons))))
    assert found[0] == found[1]
