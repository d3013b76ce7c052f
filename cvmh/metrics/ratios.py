"""Shares of counts, and their means, where a count may be 0."""

from collections.abc import Iterable
from typing import Any


def ratio(part: Any, whole: Any) -> float | None:
    """Return the share of a whole, or nothing of nothing."""
    return float(part) / float(whole) if whole else None


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that there are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
