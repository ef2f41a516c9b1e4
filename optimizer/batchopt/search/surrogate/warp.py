"""The output warp: linear near the best value, logarithmic below it.

One diverged trial, ten thousand times worse than the rest, would flatten everything that matters for a Gaussian
process. The warp keeps differences near the best as they are and counts large gaps by their order of magnitude only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def warp(values: FloatArray, best: float, scale: FloatArray) -> FloatArray:
    """Values seen from the best: (y - best) / scale above it, -log(1 + (best - y) / scale) below.

    Args:
        values: larger is better, shape (values,).
        best: where the warp is centred; its slope there is 1 / scale.
        scale: of the linear part, in units of the values, shape (sets, 1).

    Returns:
        Shape (sets, values).
    """
    gap = (best - values) / scale
    return np.where(gap > 0, -np.log1p(np.maximum(gap, 0.0)), -gap)


def log_slope(values: FloatArray, best: float, scale: FloatArray) -> FloatArray:
    """Logarithm of the warp's derivative, what the evidence of a warped model needs; shape (sets, values)."""
    return -np.log(scale) - np.log1p(np.maximum((best - values) / scale, 0.0))


def unwarp(warped: FloatArray, best: float, scale: FloatArray) -> FloatArray:
    """The inverse of `warp`, elementwise; gaps beyond e^50 scales are held there."""
    below = np.expm1(np.clip(-warped, 0.0, 50.0))
    return best - scale * np.where(warped < 0, below, -warped)
