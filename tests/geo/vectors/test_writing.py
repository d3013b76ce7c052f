import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cvmh.classes import ISPRS
from cvmh.geo.vectors import write_vectors

SIDES = st.integers(1, 14)
IDS = st.sampled_from([0, 1, 2, 255])
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape, elements=IDS))
# The fixtures only give functions; what one example writes the next one overwrites.
SHARED = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def write(path, target, **options):
    return write_vectors(path, target, ISPRS, overwrite=True, **options)


def check_same_regions(read, expected):
    """Check that polygons are equal to others, as sets of pairs of class and point set."""
    assert len(read.polygons) == len(expected)
    by_point = {(c, p.representative_point().coords[0]): p for c, p in expected}
    tree = shapely.STRtree(read.polygons)
    for (class_id, point), polygon in by_point.items():
        found = tree.query(shapely.Point(point), predicate="within")
        assert [int(read.columns["class_id"][i]) for i in found] == [class_id]
        assert read.polygons[found[0]].equals(polygon)


@SHARED
@given(array=MASKS, chunk=st.integers(1, 9), crowd=st.sampled_from([0, 30, 10**6]))
def test_with_their_stairs_polygons_are_those_that_gdal_traces(
    tmp_path, write_mask, read, trace_with_gdal, array, chunk, crowd
):
    target = tmp_path / "p.gpkg"
    path = write_mask(array)
    summary = write(path, target, simplify=0, chunk=chunk, crowd=crowd)
    found = read(target, in_pixels=True)
    check_same_regions(found, trace_with_gdal(array))
    assert summary.num_polygons == len(found.polygons)
    assert shapely.is_valid(found.polygons).all()
    assert shapely.coverage_is_valid(found.polygons)


@SHARED
@given(
    array=MASKS,
    grow=st.integers(1, 3),
    chunk=st.integers(2, 20),
    crowd=st.sampled_from([0, 60, 10**6]),
    simplify=st.sampled_from([0.8, 1.0, 2.5]),
)
def test_simplified_neighbours_neither_gap_nor_overlap(
    tmp_path, write_mask, read, array, grow, chunk, crowd, simplify
):
    array = array.repeat(grow, axis=0).repeat(grow, axis=1)
    target = tmp_path / "p.gpkg"
    write(write_mask(array), target, simplify=simplify, chunk=chunk, crowd=crowd)
    found = read(target, in_pixels=True)
    assert shapely.is_valid(found.polygons).all()
    assert set(shapely.get_type_id(found.polygons)) <= {3}
    assert (shapely.area(found.polygons) > 0).all()
    # Shared edges are the same edges, so there is neither a sliver between polygons nor across.
    assert shapely.coverage_is_valid(found.polygons)
    union = shapely.union_all(found.polygons)
    assert union.area == pytest.approx(shapely.area(found.polygons).sum(), abs=1e-9)
    num_regions = sum(ndimage.label(array == class_id)[1] for class_id in range(3))
    assert len(found.polygons) == num_regions


@SHARED
@given(array=MASKS, chunk=st.integers(1, 9))
def test_areas_add_up_to_the_pixels_of_each_class(tmp_path, write_mask, read, array, chunk):
    target = tmp_path / "p.gpkg"
    summary = write(write_mask(array), target, simplify=3, chunk=chunk)
    found = read(target)
    expected = np.bincount(array.ravel(), minlength=256)[:6] * 4.0
    ids, areas = found.columns["class_id"], found.columns["area_m2"]
    np.testing.assert_array_equal(np.bincount(ids, weights=areas, minlength=6), expected)
    assert list(summary.areas.values()) == expected.tolist()


def test_a_full_mask_without_nodata_stays_without_holes(tmp_path, write_mask, read, draw_blobs):
    array = draw_blobs(0, 90, 70, blob=3, share_nodata=0)
    write(write_mask(array), tmp_path / "p.gpkg", chunk=32)
    union = shapely.union_all(read(tmp_path / "p.gpkg", in_pixels=True).polygons)
    assert union.equals(shapely.box(0, 0, 70, 90))


@pytest.mark.parametrize("simplify", [0, 1.0])
@pytest.mark.parametrize("turned", [False, True])
def test_a_region_across_five_chunks_is_one_polygon_with_its_holes(
    tmp_path, write_mask, read, simplify, turned
):
    array = np.full((20, 100), 255, np.uint8)
    array[5:15, 3:97] = 1
    # A hole inside a chunk, one across two, and one that another region fills.
    array[8:11, 5:9] = 255
    array[8:11, 36:45] = 255
    array[7:12, 55:65] = 2
    array = array.T.copy() if turned else array
    write(write_mask(array), tmp_path / "p.gpkg", simplify=simplify, chunk=20)
    found = read(tmp_path / "p.gpkg", in_pixels=True)
    assert found.columns["class_id"].tolist().count(1) == 1
    polygon = found.polygons[found.columns["class_id"].tolist().index(1)]
    assert shapely.get_num_interior_rings(polygon) == 3
    assert polygon.area == (array == 1).sum()
    # Straight borders across the rims of chunks keep no vertex there.
    assert shapely.get_num_coordinates(polygon) == 4 * 5


def test_the_vertices_do_not_depend_on_the_chunks_where_nothing_is_simplified(
    tmp_path, write_mask, read, draw_blobs
):
    array = draw_blobs(1, 61, 47, blob=2)
    path = write_mask(array)
    found = []
    for chunk, crowd in ((512, 10**6), (8, 10**6), (16, 0), (7, 10**6)):
        write(path, tmp_path / "p.gpkg", simplify=0, chunk=chunk, crowd=crowd)
        polygons = read(tmp_path / "p.gpkg").polygons
        found.append(sorted(shapely.to_wkt(shapely.normalize(polygons))))
    assert found[0] == found[1] == found[2] == found[3]


def test_pixels_that_touch_by_a_corner_make_valid_rings(tmp_path, write_mask, read):
    array = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0]], np.uint8)
    for simplify in (0, 0.5):
        write(write_mask(array), tmp_path / "p.gpkg", simplify=simplify)
        polygons = read(tmp_path / "p.gpkg").polygons
        assert shapely.is_valid(polygons).all()
        assert len(polygons) == 6


def test_stairs_become_straight_lines_near_them(tmp_path, write_mask, read):
    rows, columns = np.mgrid[:120, :120]
    array = (rows > 0.4 * columns + 20).astype(np.uint8)
    path = write_mask(array)
    vertices = {}
    for simplify in (0, 1.0, 2.0):
        write(path, tmp_path / "p.gpkg", simplify=simplify, chunk=64)
        lower = read(tmp_path / "p.gpkg", in_pixels=True).polygons[0]
        vertices[simplify] = shapely.get_num_coordinates(lower)
        line = shapely.LineString([(0, 20), (120, 68)])
        inside = shapely.clip_by_rect(lower.boundary, 0.5, 0.5, 119.5, 119.5)
        assert shapely.hausdorff_distance(inside, line) < 3
    assert vertices[1.0] < vertices[0] / 4
    assert vertices[2.0] <= vertices[1.0]


def test_confidence_is_the_mean_over_the_pixels_that_have_one(tmp_path, write_mask, read):
    array = np.array([[0] * 6 + [1] * 6] * 4, np.uint8)
    array[0, 0], array[3, 11] = 2, 3
    sure = np.random.default_rng(0).integers(0, 255, array.shape).astype(np.uint8)
    sure[1, 3:9] = 255
    sure[3, 11] = 255
    sure_path = write_mask(sure, "confidence.tif")
    write(write_mask(array), tmp_path / "p.gpkg", confidence=sure_path, chunk=4)
    columns = read(tmp_path / "p.gpkg").columns
    for class_id, value in zip(columns["class_id"], columns["confidence"], strict=True):
        chosen = sure[(array == class_id) & (sure != 255)] / 254
        expected = chosen.mean() if chosen.size else np.nan
        assert value == pytest.approx(expected, nan_ok=True)


def test_without_a_confidence_raster_there_is_no_such_attribute(tmp_path, write_mask, read):
    write(write_mask(np.zeros((3, 3), np.uint8)), tmp_path / "p.gpkg")
    assert list(read(tmp_path / "p.gpkg").columns) == ["class_id", "class", "area_m2"]


def test_progress_ends_at_the_last_row(tmp_path, write_mask):
    seen = []
    write(
        write_mask(np.zeros((30, 9), np.uint8)),
        tmp_path / "p.gpkg",
        min_area=1,
        chunk=8,
        progress=lambda *step: seen.append(step),
    )
    assert seen[3] == ("regions", 30, 30, "rows")
    assert seen[-1] == ("polygons", 30, 30, "rows")
    assert len(seen) == 8


def test_a_sparse_mask_is_not_read_where_nothing_is_stored(tmp_path, read, monkeypatch):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "height": 60_000, "width": 60_000, "count": 1, "nodata": 255}
    with rasterio.open(
        path,
        "w",
        dtype="uint8",
        tiled=True,
        blockxsize=512,
        blockysize=512,
        sparse_ok=True,
        compress="deflate",
        crs="EPSG:32632",
        transform=Affine(2, 0, 500_000, 0, -2, 5_400_000),
        **profile,
    ) as dataset:
        for row, column in ((0, 0), (20_470, 40_950), (59_000, 59_500)):
            block = np.full((64, 64), 3, np.uint8)
            dataset.write(block, 1, window=rasterio.windows.Window(column, row, 64, 64))
    summary = write(path, tmp_path / "p.gpkg")
    # The second square lies on a corner of four chunks.
    assert summary.num_polygons == 3
    assert read(tmp_path / "p.gpkg").columns["area_m2"].tolist() == [64 * 64 * 4.0] * 3
