"""What the surrogate is given: points of learning curves, and which of them are kept when there are too many."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_POINTS = 420
"""More are thinned: a decision's time goes with their third power."""


@dataclass(frozen=True)
class Curves:
    """What was observed.

    Attributes:
        x: configurations in the unit cube, shape (trials, dims).
        trial: the trial of each point, shape (points,).
        fidelity: epochs trained over epochs of a whole trial, in (0, 1], shape (points,).
        value: larger is better, finite, shape (points,).
        pending_trial, pending_fidelity: the same for steps under way, shape (pending,) each.
        censored: points of which is only known that the truth is at most this value, shape (points,).
    """

    x: FloatArray
    trial: IntArray
    fidelity: FloatArray
    value: FloatArray
    pending_trial: IntArray
    pending_fidelity: FloatArray
    censored: npt.NDArray[np.bool_]


LEAST_SPREAD = 1e-5
"""Of the best value: a hundredth of it is what numbers of 32 bits are rounded by."""


def maturity(fidelity: npt.ArrayLike) -> FloatArray:
    """phi(t): 0 after the last epoch, 1 a quarter of the way, at most 2; elementwise."""
    return np.asarray(np.minimum(np.log(np.asarray(fidelity, dtype=float)) / math.log(0.25), 2.0) + 0.0)


def spread(values: FloatArray) -> float:
    """The range of the values, less what few of them spoil: training that blew up may be off by any factor."""
    best = float(values.max())
    gaps = best - np.quantile(values, [0.0, 0.5, 0.75])
    spread = float(min((factor * gap for factor, gap in zip((1, 4, 16), gaps, strict=True) if gap > 0), default=0.0))
    # At a metric's ceiling most are as good as one another, and differ by how numbers are rounded.
    spread = max(spread, min(float(gaps[0]), LEAST_SPREAD * abs(best)))
    return spread or max(abs(best) * 0.1, 1e-12)


def thinned(curves: Curves) -> Curves:
    """At most `MAX_POINTS` of them: the last point of every trial first, then the rest from the best values down."""
    excess = len(curves.value) - MAX_POINTS
    if excess <= 0:
        return curves
    last: dict[int, int] = {}
    for point in np.lexsort((curves.fidelity, curves.trial)):
        last[int(curves.trial[point])] = int(point)
    is_last = np.zeros(len(curves.value), dtype=bool)
    is_last[list(last.values())] = True
    order = np.lexsort((-curves.value, ~is_last))
    kept = np.sort(order[:MAX_POINTS])
    return chosen(curves, kept)


def ordered(curves: Curves) -> Curves:
    """The exact points first, then the censored ones."""
    return chosen(curves, np.argsort(curves.censored, kind="stable")) if curves.censored.any() else curves


def same_points(one: Curves, other: Curves) -> bool:
    """Whether the same was observed of the same configurations, whatever is under way."""
    names = ("trial", "fidelity", "value", "censored")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return same and np.array_equal(one.x[one.trial], other.x[other.trial])


def chosen(curves: Curves, points: IntArray) -> Curves:
    """These of the points; what is under way stays."""
    return replace(
        curves,
        trial=curves.trial[points],
        fidelity=curves.fidelity[points],
        value=curves.value[points],
        censored=curves.censored[points],
    )
