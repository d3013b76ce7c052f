"""A factor per class for the loss, from how many pixels each class has."""

from collections.abc import Sequence

import numpy as np

from cvmh.errors import ConfigError

# Neighbouring pixels say nearly the same: squares of 32 x 32 are the samples that are counted, ...
PIXELS_A_SAMPLE = 32 * 32
# ... and about 1 / (1 - beta) = 1000 of a class say all that there is to say of it.
BETA = 0.999


def class_weights(
    wanted: str | Sequence[float], class_pixels: Sequence[int]
) -> tuple[float, ...] | None:
    """Return a weight per class, 1 on average over the classes that occur, or None for no weights.

    With ``n`` the pixels of a class: "inverse" is ``1 / n``; "sqrt_inverse" ``1 / sqrt(n)``;
    "effective" ``(1 - beta) / (1 - beta^m)`` with ``m`` samples (Cui et al. 2019, "Class-balanced
    loss based on effective number of samples", equation 2). A class without any pixel gets
    weight 0: nothing can be learnt of it. A list of numbers is taken as it is.

    Raises:
        ConfigError: a list has another length than there are classes.
    """
    if not isinstance(wanted, str):
        if len(wanted) != len(class_pixels):
            raise ConfigError(
                f"train.class_weights must have one number for each of {len(class_pixels)} "
                f"classes, got {len(wanted)}"
            )
        return tuple(wanted)
    pixels = np.array(class_pixels, dtype=np.float64)
    is_there = pixels > 0
    if wanted == "none" or not is_there.any():
        return None
    weights = np.zeros_like(pixels)
    found = pixels[is_there]
    weights[is_there] = {
        "inverse": 1 / found,
        "sqrt_inverse": found**-0.5,
        "effective": (1 - BETA) / (1 - BETA ** (found / PIXELS_A_SAMPLE)),
    }[wanted]
    return tuple((weights / weights[is_there].mean()).tolist())
