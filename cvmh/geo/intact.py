"""Whether a GeoTIFF that was just written is whole: GDAL may swallow a failed write."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
# TIFF tags, and the numpy types of TIFF's unsigned integers.
WIDTH, HEIGHT, BLOCK_WIDTH, BLOCK_HEIGHT, OFFSETS, LENGTHS = 256, 257, 322, 323, 324, 325
INTEGERS = {3: "u2", 4: "u4", 16: "u8"}


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One image of a TIFF file, full size or overview: where each of its blocks is stored.

    Shapes are (rows, columns) in pixels.
    ``offsets`` and ``lengths`` are (planes, rows of blocks, columns of blocks) in bytes, 0 where
    a block is not stored; a file whose bands are interleaved by pixel has one plane.
    """

    shape: tuple[int, int]
    block_shape: tuple[int, int]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]


def check_blocks(path: Path, stored: Flags, full: Flags) -> None:
    """Check that each block with data was stored, and that no block is cut off.

    The blocks of overviews are checked as far as it is certain what they hold: those that show
    the centre of a block without gaps must be there.

    Args:
        path: a tiled GeoTIFF.
        stored: (bands, rows of blocks, columns of blocks), true where a block has any data.
        full: the same shape, true where a block is all data.

    Raises:
        OSError: a block is missing or cut off.
    """
    size = path.stat().st_size
    first, *overviews = read_directories(path)
    _check(first, stored, size, "block")
    for overview in overviews:
        _check(overview, _shown(full, first, overview), size, "overview block")


def _check(directory: Directory, required: Flags, size: int, what: str) -> None:
    if len(directory.offsets) == 1:
        required = np.logical_or.reduce(required, axis=0, keepdims=True)
    present = (directory.offsets > 0) & (directory.lengths > 0)
    wrong = (required & ~present) | (directory.offsets + directory.lengths > size)
    if wrong.any():
        _plane, row, column = np.argwhere(wrong)[0]
        raise OSError(f"{what} {row},{column} was not stored")


def _shown(full: Flags, first: Directory, overview: Directory) -> Flags:
    """Return which blocks of an overview show the centre of a block that is all data."""
    shown = np.zeros((len(full), *overview.offsets.shape[1:]), dtype=bool)
    band, *places = np.nonzero(full)
    blocks = []
    for axis, place in enumerate(places):
        scale = first.shape[axis] / overview.shape[axis]
        # Then a whole block is less than two pixels of the overview.
        if first.block_shape[axis] < 2 * scale:
            return shown
        pixel = (place + 0.5) * first.block_shape[axis] / scale
        block = (pixel / overview.block_shape[axis]).astype(int)
        blocks.append(np.minimum(block, shown.shape[1 + axis] - 1))
    shown[band, blocks[0], blocks[1]] = True
    return shown


def read_directories(path: Path) -> list[Directory]:
    """Read where the blocks of a tiled TIFF or BigTIFF are stored, overviews included.

    Raises:
        OSError: the file is cut off or is no tiled TIFF.
    """
    with path.open("rb") as file:
        try:
            return [_directory(entries) for entries in _all_entries(file)]
        except (KeyError, ValueError, struct.error) as error:
            raise OSError("the directory of its blocks was not stored") from error


def _all_entries(file: BinaryIO) -> Iterator[dict[int, NDArray[np.uint64]]]:
    """Yield the integer tags of each directory."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}[head[:2]]
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    # Formats of an offset, of the number of entries, and of an entry; where the first offset is.
    pointer, number, entry, first = ("Q", "Q", "HHQ8s", 8) if big else ("I", "H", "HHI4s", 4)
    pointer, number, entry = order + pointer, order + number, order + entry
    (offset,) = struct.unpack_from(pointer, head, first)
    while offset:
        file.seek(offset)
        (count,) = struct.unpack(number, file.read(struct.calcsize(number)))
        table = file.read(count * struct.calcsize(entry))
        (offset,) = struct.unpack(pointer, file.read(struct.calcsize(pointer)))
        yield {
            tag: _values(file, order + INTEGERS[kind], length, raw, pointer)
            for tag, kind, length, raw in struct.iter_unpack(entry, table)
            if kind in INTEGERS
        }


def _values(file: BinaryIO, kind: str, count: int, raw: bytes, pointer: str) -> NDArray[np.uint64]:
    """Return the values of an entry, which are in the entry itself where they fit."""
    size = count * np.dtype(kind).itemsize
    if size > len(raw):
        file.seek(struct.unpack(pointer, raw)[0])
        raw = file.read(size)
    return np.frombuffer(raw, dtype=kind, count=count).astype(np.uint64)


def _directory(entries: dict[int, NDArray[np.uint64]]) -> Directory:
    height, width = int(entries[HEIGHT][0]), int(entries[WIDTH][0])
    block_height, block_width = int(entries[BLOCK_HEIGHT][0]), int(entries[BLOCK_WIDTH][0])
    grid = (-1, -(-height // block_height), -(-width // block_width))
    return Directory(
        shape=(height, width),
        block_shape=(block_height, block_width),
        offsets=entries[OFFSETS].reshape(grid),
        lengths=entries[LENGTHS].reshape(grid),
    )
