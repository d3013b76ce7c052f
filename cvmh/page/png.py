"""Pictures as PNG bytes: the same pixels give the same bytes."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_COLOURS = 256


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an array (H, W), (H, W, 3) or (H, W, 4) as a PNG file.

    A picture of at most 256 colours is written with a palette, which makes masks small.
    """
    picture = _indexed(pixels) if pixels.ndim == 3 and pixels.shape[2] == 3 else None
    if picture is None:
        picture = Image.fromarray(pixels)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _indexed(pixels: NDArray[np.uint8]) -> Image.Image | None:
    """Return a picture (H, W, 3) with a palette, None if it has too many colours for one."""
    red, green, blue = pixels.astype(np.uint32).transpose(2, 0, 1)
    codes, ids = np.unique((red << 16) | (green << 8) | blue, return_inverse=True)
    if len(codes) > MAX_COLOURS:
        return None
    palette = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)
    picture = Image.fromarray(ids.reshape(pixels.shape[:2]).astype(np.uint8), mode="L")
    picture.putpalette(palette.tobytes())
    return picture
