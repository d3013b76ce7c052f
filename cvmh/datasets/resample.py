"""Cuts in another size: things appear larger or smaller.

Legend: C bands, H height, W width.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.datasets.reader import Cut

# An output pixel is data where at least half of what it shows is.
ENOUGH = 0.5


def resample(cut: Cut, height: int, width: int) -> Cut:
    """Return a cut in another size.

    The image is averaged over areas where it shrinks (nothing aliases) and interpolated
    linearly where it grows, from pixels with data alone; the label takes the nearest pixel.
    """
    if cut.label.shape == (height, width):
        return cut
    nearest = cv2.resize(cut.label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    label: NDArray[np.uint8] = nearest.astype(np.uint8, copy=False)
    image = _bands(cut.image, height, width)
    if cut.validity.all():
        return Cut(image, label, np.ones((height, width), dtype=bool))
    weight = _bands(cut.validity[None].astype(np.float32), height, width)[0]
    validity = weight >= ENOUGH
    # Pixels without data are 0 in the sum, so that to divide by the weight leaves them out.
    image = np.where(validity, image / np.maximum(weight, ENOUGH), np.float32(0))
    return Cut(image, np.where(validity, label, np.uint8(NODATA_ID)), validity)


def _bands(image_CHW: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    shrinks = height <= image_CHW.shape[1] and width <= image_CHW.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = np.empty((len(image_CHW), height, width), dtype=np.float32)
    for band, target in zip(image_CHW, resized, strict=True):
        target[:] = cv2.resize(band, (width, height), interpolation=how)
    return resized
