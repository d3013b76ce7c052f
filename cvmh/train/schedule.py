"""The learning rate over a run."""

import math

from cvmh.config import TrainSettings


def learning_rate(progress: float, settings: TrainSettings) -> float:
    """Return the learning rate at a point of the run: linear warm-up, then a cosine.

    Args:
        progress: the share of the run that is done, 0..1.
        settings: ``learning_rate`` is the peak, ``final_learning_rate`` the end, ``warmup`` the
            share of the run that climbs.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < settings.warmup:
        # Never zero, so that the first step already learns.
        return settings.learning_rate * max(progress / settings.warmup, 0.01)
    phase = (progress - settings.warmup) / (1 - settings.warmup)
    swing = (1 + math.cos(math.pi * phase)) / 2
    return settings.final_learning_rate + swing * (
        settings.learning_rate - settings.final_learning_rate
    )
