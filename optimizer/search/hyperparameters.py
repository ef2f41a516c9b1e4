"""Hyperparameter sets of the surrogate: a fixed low-discrepancy sample of the prior, to be weighed by evidence."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import qmc

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COUPLING = (0.0, 1.2)
"""The best rate goes with batch size ** a: none (0), square root (0.5), linear (1), and a little beyond."""

LENGTHSCALE = (0.5, 0.6)
"""Median, in sides of the cube, in two dimensions (it grows with their square root); spread of its logarithm."""

BEHIND, PACE = (0.3, 1.2), (0.01, 1.3)
RUN, NOISE = (0.002, 1.5), (0.001, 1.5)
"""Median and log spread of variances, in parts of that of the final value over the space. Wide: they differ by orders
of magnitude between a clean problem and a noisy one, and the evidence tells soon."""

WARP_SCALE = (0.01, 0.5)
"""Where the warp turns from linear to logarithmic, log-uniform, in parts of the spread of the values."""


@dataclass(frozen=True)
class HyperparameterSets:
    """One row a set.

    Attributes:
        lengthscale: shape (sets, dims).
        coupling: exponent a of the batch size in the best rate, shape (sets,).
        behind: variance of h, how far behind the end a curve is, shape (sets,).
        run, pace: variances of r and r', a run's own luck and pace, shape (sets,).
        noise: variance of an observation, shape (sets,).
        warp_scale: in parts of the spread of the values, shape (sets,).
    """

    lengthscale: FloatArray
    coupling: FloatArray
    behind: FloatArray
    run: FloatArray
    pace: FloatArray
    noise: FloatArray
    warp_scale: FloatArray

    def __len__(self) -> int:
        return len(self.coupling)

    def chosen(self, rows: IntArray) -> HyperparameterSets:
        """These sets only, in this order."""
        return HyperparameterSets(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


@functools.cache
def prior_sets(dims: int, count: int) -> HyperparameterSets:
    """The sample of the prior, always the same.

    Args:
        dims: of the cube.
        count: how many sets, a power of two.
    """
    u = qmc.Sobol(6 + dims, scramble=True, rng=np.random.default_rng(20181031)).random(count)

    def log_normal(column: FloatArray, median: float, spread: float) -> FloatArray:
        return np.asarray(median * np.exp(spread * ndtri(np.clip(column, 1e-4, 1.0 - 1e-4))))

    low, high = WARP_SCALE
    return HyperparameterSets(
        lengthscale=log_normal(u[:, 6:], LENGTHSCALE[0] * math.sqrt(max(dims, 2) / 2), LENGTHSCALE[1]),
        coupling=COUPLING[0] + (COUPLING[1] - COUPLING[0]) * u[:, 0],
        behind=log_normal(u[:, 1], *BEHIND),
        run=log_normal(u[:, 2], *RUN),
        pace=log_normal(u[:, 3], *PACE),
        noise=log_normal(u[:, 4], *NOISE),
        warp_scale=low * (high / low) ** u[:, 5],
    )
