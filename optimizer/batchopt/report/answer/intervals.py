"""Means and their confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEVEL = 0.9
"""Of intervals, here as everywhere in a report."""


@dataclass(frozen=True)
class Mean:
    """A mean of independent values.

    Attributes:
        mean: of them.
        low, high: its 90 % t-interval; None with one value.
        spread: their standard deviation; None with one value.
        count: how many.
    """

    mean: float
    low: float | None
    high: float | None
    spread: float | None
    count: int


def mean_of(values: Iterable[float]) -> Mean | None:
    """The mean with its t-interval; None of nothing."""
    # Not at the top: SciPy takes its time to load.
    from scipy.special import stdtrit

    known = list(values)
    if not known:
        return None
    mean, count = statistics.fmean(known), len(known)
    if count == 1:
        return Mean(mean, None, None, None, 1)
    spread = statistics.stdev(known)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(count)
    return Mean(mean, mean - half, mean + half, spread, count)


def _pooled(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within groups; None where no group has two values."""
    known = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in known)
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in known)
    return math.sqrt(squares / freedom) if freedom else None
