"""Tiles come out of the reader as they lie in the file, and nothing is read twice or in vain."""

import itertools

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window as Part

from cvmh.geo.raster import Raster
from cvmh.geo.tiling import split_columns
from cvmh.predict.options import PredictOptions
from cvmh.predict.read import SceneReader, wrapped
from cvmh.predict.source import open_source

LAYOUTS = {
    "strips of a row": {"blockysize": 1},
    "strips of 7 rows": {"blockysize": 7},
    "one block": {"blockysize": 330},
    "blocks of 16": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "blocks of 32 x 112": {"tiled": True, "blockxsize": 112, "blockysize": 32},
    "blocks of 512": {"tiled": True, "blockxsize": 512, "blockysize": 512},
    "bands apart": {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"},
}
# Tile, overlap, widest span.
PLANS = [(64, 0.25, 999), (33, 0.5, 90), (50, 0.8, 64), (1000, 0, 70), (20, 0, 21)]


@pytest.fixture
def read_tiles(make_bundle, monkeypatch):
    """Return a function that reads all tiles, and how often each pixel was read, span by span."""

    def read(path, tile, overlap, widest, first=0, **options):
        bundle = make_bundle(mean=(0.0,) * 3, std=(1.0,) * 3)
        with Raster(path) as raster:
            source = open_source(raster, bundle.card, PredictOptions(tile=tile, **options), print)
            plan = source.lay_tiles(overlap)
            tiles, times = [], []
            direct = Raster.read
            for span in split_columns(plan.width, widest=widest):
                counts = np.zeros((plan.height, plan.width), int)

                def counted(self, window=None, bands=None, counts=counts):
                    counts[window.rows, window.columns] += 1
                    return direct(self, window, bands)

                with monkeypatch.context() as patch:
                    patch.setattr(Raster, "read", counted)
                    reader = SceneReader(source, plan, span)
                    tiles.append((span, list(reader.tiles(min(first, plan.num_stripes - 1)))))
                times.append(counts)
        return plan, tiles, times

    return read


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_are_what_lies_in_the_file_and_no_pixel_is_read_twice(
    make_scene, noise, read_tiles, layout
):
    array = noise(3, 330, 210)
    array[:, 90:170, :120] = 0
    is_data = (array != 0).any(axis=0)
    scene = make_scene(array, nodata=0, **LAYOUTS[layout])
    for plan, first in itertools.product(PLANS, (0, 2)):
        tiles, spans, times = read_tiles(scene, *plan, first=first)
        first = min(first, tiles.num_stripes - 1)
        for (span, found), counts in zip(spans, times, strict=True):
            expected = [
                window
                for stripe in tiles.stripes(first)
                for window in stripe.within(span).windows
                if is_data[window.rows, window.columns].any()
            ]
            assert [tile.window for tile in found] == expected, plan
            for tile in found:
                place = tile.window.rows, tile.window.columns
                np.testing.assert_array_equal(tile.is_valid_HW, is_data[place])
                np.testing.assert_array_equal(tile.pixels_CHW, array[:, *place] * is_data[place])
            assert counts.max() == 1, plan


def test_windows_that_were_never_stored_are_never_read(tmp_path, read_tiles):
    path = tmp_path / "sparse.tif"
    profile = {"height": 2000, "width": 1500, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 64, "blockysize": 64, "photometric": "RGB", "interleave": "pixel"}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **profile) as dataset,
    ):
        dataset.write(np.full((3, 64, 64), 7, "uint8"), window=Part(640, 1280, 64, 64))
    for widest in (1500, 400):
        plan, spans, times = read_tiles(path, 128, 0.25, widest)
        found = [tile for _, tiles in spans for tile in tiles]
        assert found and plan.num_tiles > 200
        for tile in found:
            rows, columns = np.nonzero(tile.is_valid_HW)
            rows, columns = rows + tile.window.row, columns + tile.window.column
            assert rows.min() >= 1280 and rows.max() < 1344
            assert columns.min() >= 640 and columns.max() < 704
        read = sum(counts for counts in times)
        assert read[1280:1344, 640:704].min() >= 1
        # No more than the tiles around the block: of three million pixels, these.
        assert np.count_nonzero(read) <= 512 * 512
        assert not read[:1024].any() and not read[1664:].any()


def test_a_tile_without_data_is_left_out_though_its_blocks_are_stored(
    make_scene, noise, read_tiles
):
    array = noise(3, 200, 200)
    array[:, :100] = 0
    _, ((_, tiles),), _ = read_tiles(make_scene(array, nodata=0), 50, 0, 200)
    assert len(tiles) == 8
    assert {tile.window.row for tile in tiles} == {100, 150}


@pytest.mark.parametrize("ring", [1, 5, 8])
def test_rows_wrap_around_the_ring_in_order(ring):
    for row, count in itertools.product(range(20), range(1, ring + 1)):
        places = np.concatenate([np.arange(ring)[place] for place, _ in wrapped(row, count, ring)])
        parts = np.concatenate([np.arange(count)[part] for _, part in wrapped(row, count, ring)])
        np.testing.assert_array_equal(places, np.arange(row, row + count) % ring)
        np.testing.assert_array_equal(parts, np.arange(count))
