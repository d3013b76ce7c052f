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
WIDTH, HEIGHT, PLANES, TILE_WIDTH, TILE_HEIGHT, OFFSETS, LENGTHS = 256, 257, 284, 322, 323, 324, 325
INTEGERS = {3: "u2", 4: "u4", 16: "u8"}
SEPARATE = 2


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One image of a TIFF file, full size or overview: where each of its blocks is stored.

    ``offsets`` and ``lengths`` are (planes, rows of blocks, columns of blocks) in bytes, 0 where
    a block is not stored; a file whose bands are interleaved by pixel has one plane.
    """

    height: int
    width: int
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
        shown = _shown(full, first.height / overview.height, first.width / overview.width, overview)
        _check(overview, shown, size, "overview block")


def _check(directory: Directory, required: Flags, size: int, what: str) -> None:
    if len(directory.offsets) == 1:
        required = np.logical_or.reduce(required, axis=0, keepdims=True)
    present = (directory.offsets > 0) & (directory.lengths > 0)
    wrong = (required & ~present) | (directory.offsets + directory.lengths > size)
    if wrong.any():
        _plane, row, column = np.argwhere(wrong)[0]
        raise OSError(f"{what} {row},{column} was not stored")


def _shown(full: Flags, scale_y: float, scale_x: float, overview: Directory) -> Flags:
    """Return which blocks of an overview show the centre of a block that is all data."""
    _planes, rows, columns = overview.offsets.shape
    shown = np.zeros((len(full), rows, columns), dtype=bool)
    # Beyond that, a whole block is less than two pixels of the overview.
    if max(scale_y, scale_x) <= 256:
        band, row, column = np.nonzero(full)
        row = np.minimum((row + 0.5) / scale_y, rows - 1).astype(int)
        column = np.minimum((column + 0.5) / scale_x, columns - 1).astype(int)
        shown[band, row, column] = True
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
    rows = -(-height // int(entries[TILE_HEIGHT][0]))
    columns = -(-width // int(entries[TILE_WIDTH][0]))
    shape = (-1, rows, columns)
    return Directory(
        height=height,
        width=width,
        offsets=entries[OFFSETS].reshape(shape),
        lengths=entries[LENGTHS].reshape(shape),
    )
