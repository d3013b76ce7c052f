"""What is stored, against what the test itself stored, or what GDAL reads where all is 7."""

import json
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cvmh.geo.coverage import Coverage, find_coverage
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import Window

SOURCE = """<{kind}>
  <SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand>
  <SrcRect xOff="{taken[0]}" yOff="{taken[1]}" xSize="{taken[2]}" ySize="{taken[3]}"/>
  <DstRect xOff="{placed[0]}" yOff="{placed[1]}" xSize="{placed[2]}" ySize="{placed[3]}"/>
</{kind}>"""


@pytest.fixture(autouse=True)
def without_georeference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@pytest.fixture
def make_sparse(tmp_path):
    """Return a function that stores 7 in some windows of some bands, and nothing elsewhere."""

    def make(parts, name="sparse.tif", height=100, width=150, count=1, **profile):
        given = {"tiled": True, "blockxsize": 16, "blockysize": 32, **profile}
        size = {"height": height, "width": width, "count": count, "dtype": "uint8"}
        path = tmp_path / name
        with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **size, **given) as dataset:
            for band, row, column in parts:
                dataset.write(
                    np.full((1, 1), 7, "uint8"), band, window=RasterioWindow(column, row, 1, 1)
                )
        return path

    return make


@pytest.fixture
def make_vrt(tmp_path):
    """Return a function that writes a VRT of bands, each a list of sources."""

    def make(*bands, name="scene.vrt", height=60, width=90, subclass=""):
        texts = [
            f'<VRTRasterBand dataType="Byte" band="{number}"{subclass}>'
            + "".join(SOURCE.format(**{"kind": "SimpleSource", "band": 1, **s}) for s in sources)
            + "</VRTRasterBand>"
            for number, sources in enumerate(bands, start=1)
        ]
        path = tmp_path / name
        path.write_text(
            f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
            f"{''.join(texts)}</VRTDataset>"
        )
        return path

    return make


@pytest.fixture
def full(make_raster):
    return make_raster("full.tif", np.full((1, 40, 50), 7, "uint8")).name


def coverage_of(path, bands=(1,)):
    with Raster(path) as raster:
        return find_coverage(raster, bands)


def whole(coverage, height, width):
    return coverage.read(Window(0, 0, height, width))


def test_blocks_that_were_never_stored_hold_no_data(make_sparse):
    coverage = coverage_of(make_sparse([(1, 0, 0), (1, 40, 130), (1, 99, 149)]))
    expected = np.zeros((100, 150), bool)
    expected[0:32, 0:16] = expected[32:64, 128:144] = expected[96:100, 144:150] = True
    np.testing.assert_array_equal(whole(coverage, 100, 150), expected)
    np.testing.assert_array_equal(coverage.read(Window(20, 5, 30, 140)), expected[20:50, 5:145])
    assert coverage.share == pytest.approx(3 / (4 * 10))
    rows, columns = np.arange(100)[:, None], np.arange(150)[None]
    np.testing.assert_array_equal(coverage.meets(rows, rows + 1, columns, columns + 1), expected)


def test_strips_are_understood_too(make_sparse):
    path = make_sparse([(1, 5, 20)], tiled=False, blockxsize=None, blockysize=3)
    expected = np.zeros((100, 150), bool)
    expected[3:6] = True
    np.testing.assert_array_equal(whole(coverage_of(path), 100, 150), expected)


def test_one_used_band_is_enough_where_bands_are_stored_apart(make_sparse):
    path = make_sparse([(1, 0, 0), (3, 40, 40)], count=3, interleave="band")
    assert not whole(coverage_of(path, [2]), 100, 150).any()
    assert whole(coverage_of(path, [1, 2]), 100, 150).sum() == 32 * 16
    assert whole(coverage_of(path, [3, 1, 3]), 100, 150).sum() == 2 * 32 * 16


def test_bands_that_are_stored_together_are_covered_together(make_sparse):
    path = make_sparse([(1, 0, 0)], count=3, interleave="pixel")
    assert whole(coverage_of(path, [3]), 100, 150).sum() == 32 * 16


def test_a_file_that_is_stored_as_a_whole_may_hold_data_everywhere(make_raster, tmp_path):
    assert coverage_of(make_raster()) is None
    photo = tmp_path / "photo.png"
    with rasterio.open(photo, "w", driver="PNG", height=8, width=8, count=1, dtype="uint8") as png:
        png.write(np.ones((1, 8, 8), "uint8"))
    assert coverage_of(photo) is None


# What the source gives, and where it lies: left, top, width, height.
PLACES = [
    ((0, 0, 50, 40), (10, 5, 50, 40)),
    ((3, 4, 20, 10), (69, 49, 20, 10)),
    ((0, 0, 50, 40), (-20, -15, 50, 40)),
    ((0, 0, 50, 40), (80, 50, 50, 40)),
    ((0, 0, 50, 40), (7.4, 3.6, 25, 20)),
    ((0, 0, 50, 40), (7.5, 3.5, 60.5, 41.5)),
    ((0.5, 0.5, 20, 20), (10.0005, 9.9995, 20, 20)),
    ((5, 5, 10, 10), (12.25, 8.75, 10, 10)),
    ((0, 0, 50, 40), (0, 0, 90, 60)),
    ((0, 0, 50, 40), (200, 0, 50, 40)),
    # More than the source has, and before its first pixel.
    ((-5, -4, 80, 60), (3, 2, 80, 60)),
]


@pytest.mark.parametrize(("taken", "placed"), PLACES)
def test_a_vrt_is_covered_where_gdal_reads_its_sources(make_vrt, full, taken, placed):
    path = make_vrt([{"file": full, "taken": taken, "placed": placed}])
    with rasterio.open(path) as dataset:
        expected = dataset.read(1) == 7
    coverage = coverage_of(path)
    found = np.ones((60, 90), bool) if coverage is None else whole(coverage, 60, 90)
    np.testing.assert_array_equal(found, expected)


def test_sources_of_all_used_bands_count(make_vrt, full):
    one, two = ((0, 0, 50, 40), (0, 0, 50, 40)), ((0, 0, 50, 40), (40, 20, 50, 40))
    first, second = ({"file": full, "taken": t, "placed": p} for t, p in (one, two))
    path = make_vrt([first], [second | {"kind": "ComplexSource"}], [first, second])
    with rasterio.open(path) as dataset:
        values = dataset.read() == 7
    for bands in ([1], [2], [1, 2], [3], [2, 3]):
        expected = values[[band - 1 for band in bands]].any(axis=0)
        np.testing.assert_array_equal(whole(coverage_of(path, bands), 60, 90), expected)


def test_a_mosaic_without_holes_may_hold_data_everywhere(make_vrt, full):
    tiles = [
        {"file": full, "taken": (0, 0, 50, 40), "placed": (x, y, 50, 40)}
        for x in (0, 40)
        for y in (0, 20)
    ]
    assert coverage_of(make_vrt(tiles)) is None
    assert coverage_of(make_vrt(tiles[:3])) is not None


def test_what_a_source_never_stored_is_a_hole_of_the_vrt_also_through_a_second_one(
    make_vrt, make_sparse
):
    # Two blocks; the second one reaches over the edge of what the VRT takes.
    sparse = make_sparse([(1, 10, 20), (1, 40, 70)], count=2, interleave="band").name
    taken, placed = (5, 8, 70, 50), (11, 3, 70, 50)
    inner = make_vrt([{"file": sparse, "taken": taken, "placed": placed}], name="inner.vrt")
    outer = make_vrt(
        [{"file": "inner.vrt", "taken": (0, 0, 90, 60), "placed": (4, -2, 90, 60)}],
        name="outer.vrt",
    )
    expected = np.zeros((60, 90), bool)
    expected[3:27, 22:38] = expected[27:53, 70:81] = True
    np.testing.assert_array_equal(whole(coverage_of(inner), 60, 90), expected)
    shifted = np.zeros_like(expected)
    shifted[:58, 4:] = expected[2:, :86]
    np.testing.assert_array_equal(whole(coverage_of(outer), 60, 90), shifted)


def test_a_source_without_rectangles_lies_in_the_corner(make_vrt, full):
    box = (0, 0, 30, 20)
    path = make_vrt([{"file": full, "taken": box, "placed": box}])
    lines = path.read_text().splitlines()
    path.write_text("".join(line for line in lines if "Rect" not in line))
    with rasterio.open(path) as dataset:
        expected = dataset.read(1) == 7
    assert expected.sum() == 40 * 50
    np.testing.assert_array_equal(whole(coverage_of(path), 60, 90), expected)


def test_a_source_that_is_missing_counts_as_data_so_that_reading_reports_it(make_vrt):
    box = (0, 0, 30, 20)
    path = make_vrt([{"file": "nowhere.tif", "taken": box, "placed": box}])
    assert whole(coverage_of(path), 60, 90).sum() == 30 * 20


def test_a_vrt_that_computes_its_pixels_may_hold_data_everywhere(make_vrt, full):
    box = (0, 0, 30, 20)
    derived = ' subClass="VRTDerivedRasterBand"><PixelFunctionType>sum</PixelFunctionType'
    path = make_vrt([{"file": full, "taken": box, "placed": box}], subclass=derived)
    assert coverage_of(path) is None


def test_many_windows_are_judged_at_once_and_never_too_few(make_vrt, full):
    sources = [
        {"file": full, "taken": (0, 0, 50, 40), "placed": (x, y, 50, 40)}
        for x, y in [(300, 20), (1000, 700), (1210, 705)]
    ]
    coverage = coverage_of(make_vrt(sources, height=800, width=1300))
    is_stored = whole(coverage, 800, 1300)
    rows, columns = np.arange(0, 800, 13)[:, None], np.arange(0, 1300, 17)[None]
    meets = coverage.meets(rows, rows + 40, columns, columns + 30)
    for (row, column), found in np.ndenumerate(meets):
        y, x = rows[row, 0], columns[0, column]
        assert found or not is_stored[y : y + 40, x : x + 30].any()
    assert meets.mean() < 0.1


@pytest.mark.slow
def test_hundreds_of_thousands_of_blocks_cost_less_than_a_few_seconds(make_sparse):
    parts = [(1, 170_000, 3), (1, 3, 170_000)]
    path = make_sparse(
        parts, height=180_000, width=180_000, blockxsize=256, blockysize=256, bigtiff="YES"
    )
    started = time.process_time()
    coverage = coverage_of(path)
    rows = np.arange(0, 180_000, 192)
    meets = coverage.meets(rows[:, None], rows[:, None] + 256, rows[None], rows[None] + 256)
    assert time.process_time() - started < 5
    assert 2 <= meets.sum() <= 8
    assert isinstance(coverage, Coverage)


# Run by a Python that has GDAL's own bindings, which the tests' Python need not have.
ASK_GDAL = """
import json, sys
from osgeo import gdal
dataset = gdal.Open(sys.argv[1])
band = dataset.GetRasterBand(1)
print(json.dumps([band.GetDataCoverageStatus(*window) for window in json.loads(sys.argv[2])]))
"""
SYSTEM_PYTHON = "/usr/bin/python3"


def ask_gdal(path, windows):
    """Return the share of each window that GDAL says is stored, 0 to 1; negative: unknown."""
    boxes = json.dumps([(w.column, w.row, w.width, w.height) for w in windows])
    has_bindings = Path(SYSTEM_PYTHON).exists() and not subprocess.call(
        [SYSTEM_PYTHON, "-c", "import osgeo.gdal"], stderr=subprocess.DEVNULL
    )
    if not has_bindings:
        pytest.skip(f"{SYSTEM_PYTHON} has no bindings of GDAL")
    command = [SYSTEM_PYTHON, "-c", ASK_GDAL, str(path), boxes]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [share / 100 for _, share in json.loads(answer.stdout)]


@pytest.mark.parametrize("kind", ["sparse", "vrt"])
def test_gdal_itself_says_the_same_of_any_window(make_sparse, make_vrt, full, kind):
    if kind == "sparse":
        path = make_sparse([(1, 0, 0), (1, 40, 130), (1, 99, 149)])
    else:
        path = make_vrt(
            [
                {"file": full, "taken": (0, 0, 50, 40), "placed": place}
                for place in [(3, 2, 50, 40), (60, 20, 50, 40), (4, 50, 25, 20)]
            ],
            height=100,
            width=150,
        )
    rng = np.random.default_rng(0)
    starts = rng.integers(0, [90, 140], (60, 2))
    sizes = np.minimum(rng.integers(1, 60, (60, 2)), [100, 150] - starts)
    windows = [Window(*box) for box in np.concatenate([starts, sizes], axis=1).tolist()]
    coverage = coverage_of(path)
    answers = np.array(ask_gdal(path, windows))
    found = np.array([coverage.read(window).mean() for window in windows])
    # Of some windows of a VRT, GDAL knows that they hold data but not how much.
    is_known = answers >= 0
    assert is_known.mean() > 0.9
    np.testing.assert_allclose(found[is_known], answers[is_known], atol=1e-9)
    assert (found[~is_known] > 0).all()
