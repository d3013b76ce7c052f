"""Pictures as PNG bytes: the same pixels give the same bytes."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

# Colour types of PNG by the number of bands.
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
# Photos hardly shrink with more effort, drawings do.
EFFORT = 9
MAX_COLOURS = 256


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an array (H, W), (H, W, 3) or (H, W, 4) as a PNG file.

    A picture of at most 256 colours is written with a palette, which makes masks small.
    """
    bands = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, num_bands = bands.shape
    drawing = _index(bands) if num_bands == 3 else None
    if drawing is not None:
        palette, ids = drawing
        header = _header(height, width, colour_type=3)
        rows = _unfiltered(ids[..., None])
        return _file(header, _chunk(b"PLTE", palette.tobytes()), _data(rows))
    header = _header(height, width, colour_type=COLOUR_TYPES[num_bands])
    return _file(header, _data(_filtered(bands)))


def _index(bands: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return the palette (colours, 3) and the ids (H, W) of a picture of few colours."""
    red, green, blue = bands.astype(np.uint32).transpose(2, 0, 1)
    codes, ids = np.unique((red << 16) | (green << 8) | blue, return_inverse=True)
    if len(codes) > MAX_COLOURS:
        return None
    palette = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)
    return palette, ids.reshape(bands.shape[:2]).astype(np.uint8)


def _unfiltered(bands: NDArray[np.uint8]) -> bytes:
    rows = bands.reshape(len(bands), -1)
    return np.pad(rows, ((0, 0), (1, 0))).tobytes()


def _filtered(bands: NDArray[np.uint8]) -> bytes:
    """Return the rows, each as differences of the kind (PNG's filters 0 to 4) that are smallest."""
    values = bands.astype(np.int16)
    padded = np.pad(values, ((1, 0), (1, 0), (0, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    guesses = (0, left, above, (left + above) // 2, _paeth(left, above, corner))
    tries = np.stack([((values - guess) & 255).astype(np.uint8) for guess in guesses])
    tries = tries.reshape(len(guesses), len(bands), -1)
    cost = np.abs(tries.view(np.int8).astype(np.int32)).sum(axis=2)
    best = cost.argmin(axis=0)
    rows = tries[best, np.arange(len(bands))]
    return np.concatenate([best[:, None].astype(np.uint8), rows], axis=1).tobytes()


def _paeth(
    left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]
) -> NDArray[np.int16]:
    """Return, of three neighbours, the one nearest to left + above - corner."""
    to_left, to_above = abs(above - corner), abs(left - corner)
    to_corner = abs(left + above - 2 * corner)
    diagonal = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, diagonal)


def _header(height: int, width: int, *, colour_type: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))


def _data(rows: bytes) -> bytes:
    return _chunk(b"IDAT", zlib.compress(rows, EFFORT))


def _file(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
