"""Normal distributions, and mixtures of them: expected gains and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

FloatArray = npt.NDArray[np.float64]

QUANTILE_POINTS, FEWEST_POINTS = 640, 10
"""Of a mixture, spread evenly over its distributions, and of one of them at least."""


def positive_part(mean: FloatArray, sd: FloatArray) -> FloatArray:
    """Expected positive part of a normal variable, elementwise."""
    standard = mean / sd
    return np.asarray(sd * (standard * ndtr(standard) + np.exp(-0.5 * standard**2) / math.sqrt(2.0 * math.pi)))


def standard_normal(count: int) -> FloatArray:
    """Points of a standard normal variable, as likely each, where a mixture has so many distributions."""
    points = max(QUANTILE_POINTS // count, FEWEST_POINTS)
    return np.asarray(ndtri((np.arange(points) + 0.5) / points))


def ranked(values: FloatArray, weight: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Quantiles of weighed values.

    Args:
        values: shape (values, columns).
        weight: of each value, adding up to 1, shape (values,).
        levels: in 0 to 1.

    Returns:
        Shape (levels, columns).
    """
    order = values.argsort(axis=0)
    below = weight[order].cumsum(axis=0)
    ascending = np.take_along_axis(values, order, axis=0)
    rows = [(below < level).sum(axis=0).clip(max=len(values) - 1) for level in levels]
    return np.stack([ascending[row, np.arange(values.shape[1])] for row in rows])
