import numpy as np
import pytest
import rasterio

from cvmh.classes import NODATA_ID
from cvmh.datasets.labelled import LabelEncoding, LabelledImage
from cvmh.datasets.reader import Reader
from cvmh.datasets.reading import choose_bands
from cvmh.geo.tiling import Window

LARGE, TILE = 6000, 256
COLOURS = {(255, 255, 255): 0, (0, 0, 255): 1, (255, 255, 0): 2, (0, 0, 0): 255}


def reader_of(image, label, *, encoding=None, mean=0.0, std=1.0, tile=32):
    entry = LabelledImage(stem="a", image=image, label=label, split="train")
    chosen = choose_bands([image])
    count = len(chosen.bands)
    return Reader(
        [entry],
        encoding or LabelEncoding(num_classes=3),
        chosen,
        mean=(mean,) * count,
        std=(std,) * count,
        tile=tile,
    )


# What a sample may hold.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bands", [[0], [1], [0, 1, 2]])
def test_what_is_no_number_never_reaches_the_network(tmp_path, write, draw, value, dtype, bands):
    image, label = draw(0, dtype=dtype)
    clean = image.copy()
    image[bands, 3:9, 4:8] = value
    paths = [write(tmp_path / "i.tif", image), write(tmp_path / "l.tif", label)]
    cut = reader_of(*paths, mean=7.0, std=3.0).read_window(0, Window(0, 0, 40, 50))
    hole = np.zeros(label.shape, bool)
    hole[3:9, 4:8] = True
    assert np.isfinite(cut.image).all()
    # As in prediction: a pixel of which a band is no number is no data.
    np.testing.assert_array_equal(cut.validity, ~hole)
    assert (cut.image[:, hole] == 0).all()
    assert (cut.label[hole] == NODATA_ID).all()
    np.testing.assert_allclose(cut.image[:, ~hole], (clean[:, ~hole] - 7) / 3, rtol=1e-5)
    np.testing.assert_array_equal(cut.label[~hole], label[~hole])


@pytest.mark.parametrize(("dtype", "value"), [("float64", 1e300), ("float32", -3.4e38)])
def test_a_number_too_large_to_be_scaled_becomes_the_mean(tmp_path, write, draw, dtype, value):
    image, label = draw(0, dtype=dtype)
    image[1, 5, 6] = value
    paths = [write(tmp_path / "i.tif", image), write(tmp_path / "l.tif", label)]
    cut = reader_of(*paths, std=0.1).read_window(0, Window(0, 0, 40, 50))
    assert np.isfinite(cut.image).all()
    assert cut.image[1, 5, 6] == 0
    assert cut.image[0, 5, 6] == pytest.approx(image[0, 5, 6] / 0.1)
    assert cut.label[5, 6] == label[5, 6]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_label_values_of_any_dtype_are_told_from_unknown_ones(dtype):
    encoding = LabelEncoding(num_classes=3, values={1: 0, 2: 1, 77: 2, 0: 255})
    pixels = np.array([[[0, 1, 2], [77, 3, 99]]], dtype)
    ids, unknown = encoding.decode(pixels)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[255, 0, 1], [2, 255, 255]]
    assert unknown.tolist() == [[False] * 3, [False, True, True]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours_are_told_from_unknown_ones(dtype):
    colours = np.array([*COLOURS, (255, 204, 0), (0, 0, 1)], dtype).T[:, None]
    ids, unknown = LabelEncoding(num_classes=3, colours=COLOURS).decode(colours)
    assert ids.tolist() == [[0, 1, 2, 255, 255, 255]]
    assert unknown.tolist() == [[False] * 4 + [True] * 2]


# What of a file is decoded.


def write_large(path, array, blocks):
    bands = array[None] if array.ndim == 2 else array
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=LARGE,
        width=LARGE,
        dtype="uint8",
        compress="deflate",
        transform=rasterio.Affine(0.05, 0, 3e5, 0, -0.05, 5e6),
        **blocks,
    ) as dataset:
        dataset.write(bands)
    return path


def damage_all_but(path, window):
    """Overwrite the stored blocks that a window does not touch; return how many are left."""
    with rasterio.open(path) as dataset:
        rows, columns = dataset.block_shapes[0]
        blocks = []
        for (row, column), block in dataset.block_windows(1):
            apart = (
                block.row_off + rows <= window.row
                or block.row_off >= window.row + window.height
                or block.col_off + columns <= window.column
                or block.col_off >= window.column + window.width
            )
            for band in dataset.indexes:
                places = [
                    int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band))
                    for what in ("OFFSET", "SIZE")
                ]
                blocks.append((apart, *places))
    with path.open("r+b") as stream:
        for apart, offset, size in blocks:
            if apart:
                stream.seek(offset)
                stream.write(b"\xff" * size)
    return sum(not apart for apart, _, _ in blocks), len(blocks)


@pytest.mark.parametrize("coloured", [False, True], ids=["ids", "colours"])
@pytest.mark.parametrize(
    "blocks",
    [{"tiled": True, "blockxsize": 256, "blockysize": 256}, {"blockysize": 4}],
    ids=["tiled", "striped"],
)
def test_of_a_large_label_only_the_blocks_of_the_window_are_decoded(
    tmp_path, write, blocks, coloured
):
    window = Window(3001, 2222, TILE, TILE)
    label = np.zeros((LARGE, LARGE), np.uint8)
    label[3100:3150, 2300:2350] = 1
    colours = np.array(list(COLOURS), np.uint8)
    path = write_large(
        tmp_path / "label.tif", colours[label].transpose(2, 0, 1) if coloured else label, blocks
    )
    image = write_large(tmp_path / "image.tif", label, blocks)
    encoding = LabelEncoding(num_classes=3, colours=COLOURS if coloured else None)
    kept, stored = damage_all_but(path, window)
    assert kept < stored / 15
    reader = reader_of(image, path, encoding=encoding, tile=TILE)
    cut = reader.read(0, window)
    assert int((cut.label == 1).sum()) == 2500
    assert int((cut.label == 0).sum()) == TILE**2 - 2500
    # The other blocks are damaged indeed.
    with pytest.raises(OSError, match="is damaged"):
        reader.read(0, Window(0, 0, TILE, TILE))
