import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from cvmh.geo.intact import check_blocks, read_directories

GRID = {"driver": "GTiff", "width": 300, "height": 200, "count": 2, "dtype": "uint8"}
BLOCKS = {"tiled": True, "blockxsize": 64, "blockysize": 32, "sparse_ok": True, "nodata": 255}
SHAPE = (2, 7, 5)


@pytest.fixture
def make_file(tmp_path):
    """Return a function that writes a file whose blocks hold data where a flag is true."""

    def make(stored, overviews=True, **options):
        pixels = np.random.default_rng(0).integers(0, 9, (2, 200, 300), dtype="uint8")
        has_data = stored.repeat(32, axis=1).repeat(64, axis=2)[:, :200, :300]
        options = {"compress": "deflate", "crs": "EPSG:32633", **options}
        with (
            rasterio.Env(SPARSE_OK_OVERVIEW="ON", GDAL_TIFF_OVR_BLOCKSIZE=64),
            rasterio.open(
                tmp_path / "file.tif",
                "w",
                transform=rasterio.Affine(1, 0, 9, 0, -1, 9),
                **GRID,
                **BLOCKS,
                **options,
            ) as file,
        ):
            file.write(np.where(has_data, pixels, 255))
            if overviews:
                file.build_overviews([2, 4], Resampling.nearest)
        return tmp_path / "file.tif"

    return make


@pytest.fixture
def some():
    """Return flags of blocks, of which band by band about half are true."""
    return np.random.default_rng(1).random(SHAPE) < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"interleave": "band"},
        {"interleave": "pixel"},
        {"interleave": "band", "bigtiff": "YES"},
        {"interleave": "band", "endianness": "BIG"},
        {"interleave": "pixel", "endianness": "BIG", "bigtiff": "YES"},
        {"interleave": "band", "compress": None},
    ],
    ids=str,
)
def test_blocks_lie_where_gdal_says(make_file, some, options):
    path = make_file(some, **options)
    directories = read_directories(path)
    assert [directory.shape for directory in directories] == [(200, 300), (100, 150), (50, 75)]
    for level, directory in enumerate(directories):
        opening = {"overview_level": level - 1} if level else {}
        with rasterio.open(path, **opening) as dataset:
            for (plane, row, column), offset in np.ndenumerate(directory.offsets):
                place = f"{column}_{row}"
                told = [
                    int(dataset.get_tag_item(f"BLOCK_{name}_{place}", "TIFF", plane + 1) or 0)
                    for name in ("OFFSET", "SIZE")
                ]
                assert told == [offset, directory.lengths[plane, row, column]]


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_blocks_without_data_may_be_missing_and_others_may_not(make_file, some, interleave):
    path = make_file(some, interleave=interleave)
    check_blocks(path, some, some)
    missing = tuple(np.argwhere(~some.any(axis=0))[0])
    for band in (0, 1):
        claimed = some.copy()
        claimed[(band, *missing)] = True
        with pytest.raises(OSError, match=f"^block {missing[0]},{missing[1]} was not stored"):
            check_blocks(path, claimed, some)


def test_a_block_missing_in_one_band_only_is_found(make_file, some):
    path = make_file(some, interleave="band")
    claimed = some.copy()
    row, column = np.argwhere(some[0] & ~some[1])[0]
    claimed[1, row, column] = True
    with pytest.raises(OSError, match="was not stored"):
        check_blocks(path, claimed, some)


def test_a_block_missing_in_an_overview_is_found(make_file):
    stored = np.zeros(SHAPE, dtype=bool)
    stored[:, :2, :2] = True
    path = make_file(stored)
    full = stored.copy()
    check_blocks(path, stored, full)
    full[:, 6, 0] = True
    with pytest.raises(OSError, match="overview block 1,0 was not stored"):
        check_blocks(path, stored, full)


@pytest.mark.parametrize("lost", [1, 400, 10_000])
def test_a_file_that_is_cut_off_is_found(make_file, lost):
    path = make_file(np.ones(SHAPE, dtype=bool), overviews=False, compress=None)
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    with pytest.raises(OSError, match="was not stored"):
        check_blocks(path, np.ones(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool))


@pytest.mark.parametrize("kept", [0, 5, 12, 40, 200])
def test_a_file_without_its_directory_is_found(make_file, kept):
    path = make_file(np.ones(SHAPE, dtype=bool))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OSError, match="was not stored"):
        check_blocks(path, np.ones(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool))
