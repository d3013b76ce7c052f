"""The learning rate over a run, and AdamW's momentum where it moves with it."""

import math

from cvmh.config import TrainSettings

# The exponent of the polynomial schedule, as DeepLab introduced it for segmentation.
POWER = 0.9
# One cycle starts at this share of the peak, and its momentum swings between these (Smith 2018, "A
# disciplined approach to neural network hyper-parameters"; the numbers are torch's OneCycleLR's).
CYCLE_START = 1 / 25
CYCLE_MOMENTUM = (0.95, 0.85)
MOMENTUM = 0.9


def learning_rate(progress: float, settings: TrainSettings) -> float:
    """Return the learning rate at a point of the run.

    A linear warm-up, then a cosine or ``(1 - t)^0.9`` down to the end; "one_cycle" climbs from a
    25th of the peak by half a cosine wave, and falls by another.

    Args:
        progress: the share of the run that is done, 0..1.
        settings: ``learning_rate`` is the peak, ``final_learning_rate`` the end, ``warmup`` the
            share of the run that climbs.
    """
    peak, end = settings.learning_rate, settings.final_learning_rate
    is_climbing, phase = _phase(progress, settings.warmup)
    if is_climbing and settings.schedule == "one_cycle":
        return _between(peak * CYCLE_START, peak, phase)
    if is_climbing:
        # Never zero, so that the first step already learns.
        return peak * max(phase, 0.01)
    if settings.schedule == "poly":
        return end + (peak - end) * (1 - phase) ** POWER
    return _between(peak, end, phase)


def momentum(progress: float, settings: TrainSettings) -> float:
    """Return AdamW's first beta at a point of the run: 0.9, but in "one_cycle" it swings."""
    if settings.schedule != "one_cycle":
        return MOMENTUM
    high, low = CYCLE_MOMENTUM
    is_climbing, phase = _phase(progress, settings.warmup)
    return _between(high, low, phase) if is_climbing else _between(low, high, phase)


def _phase(progress: float, warmup: float) -> tuple[bool, float]:
    """Return whether the rate climbs, and the share of the climb or the descent that is done."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return True, progress / warmup
    return False, (progress - warmup) / (1 - warmup)


def _between(start: float, end: float, phase: float) -> float:
    """Go from one value to another along half a cosine wave."""
    return end + (start - end) * (1 + math.cos(math.pi * phase)) / 2
