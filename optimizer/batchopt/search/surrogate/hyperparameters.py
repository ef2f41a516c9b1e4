"""Hyperparameter sets of the surrogate: drawn from their prior, then around those that explain the data best.

A sample of the prior alone grows too coarse as the evidence sharpens: one set that happens to be least wrong takes all
the weight. So the sets are drawn in rounds, and each is weighed by its prior over the density it was drawn from.

Source: Cappe et al. 2004, Population Monte Carlo; the weights over the mixture of all rounds: Owen and Zhou 2000.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from batchopt.search.surrogate.sequence import evenly

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COUPLING = (0.0, 1.2)
"""The best rate goes with batch size ** a: none (0), square root (0.5), linear (1), and a little beyond."""

LENGTHSCALE = (0.5, 0.6)
"""Median, in sides of the cube, in two dimensions (it grows with their square root); spread of its logarithm."""

CURVE, SLOPE = (0.3, 1.2), (0.01, 1.3)
RUN, NOISE = (0.002, 1.5), (0.001, 1.5)
"""Median and log spread of variances, in parts of that of the final value over the space. Wide: they differ by orders
of magnitude between a clean problem and a noisy one, and the evidence tells soon."""

WARP_SCALE = (0.05, 5.0)
"""Where the warp turns from linear to logarithmic, log-uniform, in parts of the spread of the values."""

ROUNDS, DRAWN_AGAIN = 2, 0.5
"""Rounds after the first, each with this part of its number of sets."""

CENTERS, STEP = 8, 0.5
"""New sets are drawn around so many of the likeliest, at this standard deviation, in those of the prior."""

BROAD_WEIGHT = 0.1
"""Shared equally by the sets that predict, whatever the evidence says: a guard against over-confidence."""

SEED = 10
"""Every surrogate draws the same numbers: what is decided derives from the trials alone."""


@dataclass(frozen=True)
class HyperparameterSets:
    """One row a set.

    Attributes:
        lengthscale: shape (sets, dims).
        coupling: exponent a of the batch size in the best rate, shape (sets,).
        curve: variance of h, what a configuration still gains on its way to the end, shape (sets,).
        run, slope: variances of r and r', by which runs differ in their end and on the way, shape (sets,).
        noise: variance of an observation, shape (sets,).
        warp_scale: in parts of the spread of the values, shape (sets,).
    """

    lengthscale: FloatArray
    coupling: FloatArray
    curve: FloatArray
    run: FloatArray
    slope: FloatArray
    noise: FloatArray
    warp_scale: FloatArray

    def __len__(self) -> int:
        return len(self.coupling)


class Draws:
    """The sets drawn so far. Each is a row of numbers that are standard normal under the prior, (sets, 6 + dims).

    Args:
        medians: of the lengthscales, shape (dims,).
        count: how many sets the first round draws, from the prior.
    """

    def __init__(self, medians: FloatArray, count: int) -> None:
        self._rng = np.random.default_rng(SEED)
        self._medians = medians
        self._rows = _prior_rows(len(medians), count)
        self._again = max(round(DRAWN_AGAIN * count), 4)
        # Of each round: how many sets; the logarithm of its density, but for a factor that all densities share.
        self._rounds: list[tuple[int, Callable[[FloatArray], FloatArray]]] = [(count, _log_prior)]

    def sets(self, chosen: IntArray | slice = slice(None)) -> HyperparameterSets:
        """All sets drawn so far, or these of them."""
        return _sets(self._rows[chosen], self._medians)

    def around_best(self, evidence: FloatArray) -> HyperparameterSets:
        """Draw another round.

        Args:
            evidence: logarithm, of all sets drawn so far, shape (sets,).

        Returns:
            The new sets alone.
        """
        log_weight = self.log_weight(evidence)
        best = np.argsort(-log_weight, kind="stable")[:CENTERS]
        # Half by weight, half alike: what looks best so far need not be where the best is.
        share = 0.5 * np.exp(log_weight[best] - np.logaddexp.reduce(log_weight[best])) + 0.5 / len(best)
        centers = self._rows[best]
        drawn = centers[self._rng.choice(len(best), self._again, p=share / share.sum())]
        drawn = drawn + STEP * self._rng.standard_normal(drawn.shape)
        self._rounds.append((self._again, functools.partial(_log_mixture, centers=centers, share=share)))
        self._rows = np.concatenate([self._rows, drawn])
        return _sets(drawn, self._medians)

    def log_weight(self, evidence: FloatArray) -> FloatArray:
        """Evidence times prior over the density that the sets were drawn from: the mixture of all rounds; (sets,)."""
        drawn_from = [math.log(count) + log_density(self._rows) for count, log_density in self._rounds]
        return np.asarray(evidence + _log_prior(self._rows) - np.logaddexp.reduce(drawn_from, axis=0))


def weighed(log_weight: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
    """Which sets to keep, so many, the best first, and their weights, which add up to 1."""
    kept = np.argsort(-log_weight, kind="stable")[:count]
    weight = np.exp(log_weight[kept] - np.logaddexp.reduce(log_weight[kept]))
    return kept.astype(np.int64), (1.0 - BROAD_WEIGHT) * weight + BROAD_WEIGHT / len(kept)


@functools.cache
def _prior_rows(dims: int, count: int) -> FloatArray:
    """A low-discrepancy sample of the prior, always the same."""
    uniform = evenly(count, 6 + dims, np.random.default_rng(SEED))
    return np.asarray(ndtri(np.clip(uniform, 1e-4, 1.0 - 1e-4)))


def _log_prior(rows: FloatArray) -> FloatArray:
    return np.asarray(-0.5 * (rows**2).sum(axis=1))


def _log_mixture(rows: FloatArray, *, centers: FloatArray, share: FloatArray) -> FloatArray:
    square = ((rows[:, None] - centers) ** 2).sum(axis=-1) / STEP**2
    return np.asarray(np.logaddexp.reduce(np.log(share) - 0.5 * square, axis=1) - rows.shape[1] * math.log(STEP))


def _sets(rows: FloatArray, medians: FloatArray) -> HyperparameterSets:
    low, high = WARP_SCALE

    def log_normal(columns: FloatArray, median: float | FloatArray, spread: float) -> FloatArray:
        return np.asarray(median * np.exp(spread * columns))

    return HyperparameterSets(
        lengthscale=log_normal(rows[:, 6:], medians, LENGTHSCALE[1]),
        coupling=COUPLING[0] + (COUPLING[1] - COUPLING[0]) * ndtr(rows[:, 0]),
        curve=log_normal(rows[:, 1], *CURVE),
        run=log_normal(rows[:, 2], *RUN),
        slope=log_normal(rows[:, 3], *SLOPE),
        noise=log_normal(rows[:, 4], *NOISE),
        warp_scale=low * (high / low) ** ndtr(rows[:, 5]),
    )


@dataclass(frozen=True)
class Fits:
    """One row a set: log evidence, Cholesky factor, whitened values, amplitude, and the warp's standardisation."""

    evidence: FloatArray
    factor: FloatArray
    white: FloatArray
    sigma: FloatArray
    scale: FloatArray
    center: FloatArray
    spread: FloatArray


def joined(fits: Sequence[Fits], rows: IntArray) -> Fits:
    """These rows of the fits of several rounds."""
    places = [(fit, row) for fit in fits for row in range(len(fit.evidence))]
    # Few of many: all factors in one piece would be a copy of the largest arrays there are.
    chosen = [places[row] for row in rows]
    return Fits(*(np.stack([getattr(fit, field.name)[row] for fit, row in chosen]) for field in fields(Fits)))


def column(fits: Sequence[Fits], name: str) -> FloatArray:
    """A column of the fits of several rounds, one round after the other."""
    return np.concatenate([getattr(fit, name) for fit in fits])
