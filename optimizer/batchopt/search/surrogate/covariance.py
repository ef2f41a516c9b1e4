"""What the surrogate believes before anything was seen: how values at configurations and epochs vary together.

Symbols as in `gp.py`. All variances are in squared amplitudes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from batchopt.search.surrogate.hyperparameters import LENGTHSCALE, HyperparameterSets

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MEAN_VARIANCE, TILT_VARIANCE = 1.0, 3.0
"""Of the level m, and of its slope along each side of the cube. Without a slope the surface returns to its level where
nothing was tried, so that no edge and no corner is expected best."""

TREND_VARIANCE = 1.0
"""Of the common trend m', and of its slopes: that higher rates gain more by late epochs is learned from lower ones."""

STRAIGHT = 0.5
"""How far curves go on as they began, in parts of the variance of what they gain; the rest is independent from octave
to octave of epochs. With all of it straight, a curve seen at an eighth and a quarter was believed known to its end: on
real curves a third of final values lay outside of the 90 % interval."""

BATCH_SIZE_SLOPE = -1.0
"""Mean of the slope along the batch size, in standardised values a side of the cube; all others are 0. With the epochs
fixed a smaller batch takes more steps. On real curves -1.8 and -1.5 in the two halves, give or take 0.8 from problem to
problem; held below, because elsewhere it may not be so."""

BATCH_SIZE_LENGTH, RATE_LENGTH = 1.0, 0.33
"""Medians of their lengthscales: values bend three times as fast along the rate. Fitted to 16 whole trials each, 0.9
and 0.33 on the first half of the real curves, 1.3 and 0.30 on the second, 1.0 and 0.22 on our families."""

JITTER = 1e-8


def tilted(a: FloatArray, b: FloatArray) -> FloatArray:
    """Covariance of a plane through the middle of the cube, its slopes of variance 1; shape (a, b)."""
    return np.asarray((a - 0.5) @ (b - 0.5).T)


def level(a: FloatArray, b: FloatArray) -> FloatArray:
    """Covariance of the level m, a plane; shape (a, b)."""
    return MEAN_VARIANCE + TILT_VARIANCE * tilted(a, b)


def variance_at_end(x: FloatArray) -> FloatArray:
    """Variance of m + g, shape (configurations,)."""
    return np.asarray(1.0 + MEAN_VARIANCE + TILT_VARIANCE * ((x - 0.5) ** 2).sum(axis=1))


def along(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Covariance along the epochs of what curves still gain, 1 a quarter of the way; elementwise in phi."""
    return np.asarray(STRAIGHT * np.multiply(a, b) + (1.0 - STRAIGHT) * np.minimum(a, b))


class Covariance:
    """The parts that bend with the hyperparameters.

    Args:
        rotation: (column of the batch size, column of the rate, ratio of their log ranges), or None to learn no
            coupling: the rate's coordinate becomes v - coupling * ratio * u.
        fitted: whether what was seen of other models counts; else all dimensions are alike.
    """

    def __init__(self, rotation: tuple[int, int, float] | None = None, *, fitted: bool = False) -> None:
        self._rotation = rotation
        self._fitted = fitted and rotation is not None

    def lengths(self, dims: int) -> FloatArray:
        """Medians of the lengthscales, shape (dims,)."""
        medians = np.full(dims, LENGTHSCALE[0])
        if self._rotation is not None and self._fitted:
            medians[list(self._rotation[:2])] = BATCH_SIZE_LENGTH, RATE_LENGTH
        return np.asarray(medians * math.sqrt(max(dims, 2) / 2))

    def mean(self, x: FloatArray) -> FloatArray:
        """The mean of m + g, in standardised values, shape (configurations,)."""
        if self._rotation is None or not self._fitted:
            return np.zeros(len(x))
        return np.asarray(BATCH_SIZE_SLOPE * (x[:, self._rotation[0]] - 0.5))

    def of_points(self, sets: HyperparameterSets, x: FloatArray, trial: IntArray, phi: FloatArray) -> FloatArray:
        """Covariance of observations.

        Args:
            sets: hyperparameters.
            x: configurations of trials, shape (trials, dims).
            trial: the row of each point in `x`, shape (points,).
            phi: of each point, shape (points,).

        Returns:
            Shape (sets, points, points).
        """
        same = (trial[:, None] == trial).astype(float)
        mature = along(phi[:, None], phi)
        kernel = self.matern(sets, x, x).take(trial, axis=1).take(trial, axis=2)
        kernel *= sets.curve[:, None, None] * mature + 1.0
        # All that does not bend with the lengthscales, as one product: sets times what is common to them.
        plane = tilted(x, x)[trial[:, None], trial]
        shared = MEAN_VARIANCE + TILT_VARIANCE * plane + TREND_VARIANCE * (1.0 + plane) * mature
        common = np.stack([shared, same, same * mature]).reshape(3, -1)
        kernel += (np.stack([np.ones(len(sets)), sets.run, sets.slope], axis=1) @ common).reshape(kernel.shape)
        diagonal = np.arange(len(trial))
        kernel[:, diagonal, diagonal] += sets.noise[:, None] * (1.0 + phi) + JITTER
        return kernel

    def matern(self, sets: HyperparameterSets, a: FloatArray, b: FloatArray) -> FloatArray:
        """Matern 5/2 between configurations in each set's coordinates, shape (sets, a, b)."""
        a_scaled, b_scaled = self._scaled(sets, a), self._scaled(sets, b)
        square = -2.0 * a_scaled @ b_scaled.transpose(0, 2, 1)
        square += (a_scaled**2).sum(-1)[:, :, None]
        square += (b_scaled**2).sum(-1)[:, None, :]
        square *= 5.0
        np.maximum(square, 0.0, out=square)
        r = np.sqrt(square)
        square /= 3.0
        square += r
        square += 1.0
        square *= np.exp(np.negative(r, out=r), out=r)
        return np.asarray(square)

    def _scaled(self, sets: HyperparameterSets, x: FloatArray) -> FloatArray:
        turned = np.repeat(x[None], len(sets), axis=0)
        if self._rotation is not None:
            batch, rate, ratio = self._rotation
            turned[:, :, rate] -= sets.coupling[:, None] * ratio * turned[:, :, batch]
        return turned / sets.lengthscale[:, None, :]
