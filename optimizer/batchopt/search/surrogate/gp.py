"""The model of the objective and of the learning curve: a Gaussian process over configuration and epochs.

The value of trial i at fidelity t (epochs trained / epochs of a whole trial), warped and standardised, is

    z = m(x_i) + g(x_i) + m'(x_i, t) + h(x_i, t) + r_i + r'_i(t) + noise,        phi(t) = log t / log (1/4):

m + g is what a configuration is worth in the end, m a plane; m' + h is how far it is from there at t, a quarter of
the way (phi = 1) or nearer to the end (phi(1) = 0); r and r' are the run's own: its offset and slope. `covariance.py`
has what is believed of each before anything was seen. A late bloomer has a large -h, learned from its neighbours'
curves; a curve that is extrapolated keeps the doubt of how curves bend.

| symbol  | meaning                                                     | shape                    |
|---------|-------------------------------------------------------------|--------------------------|
| x       | configurations of trials, in the unit cube                  | (trials, dims)           |
| i, t, y | trial, fidelity in (0, 1], value (larger is better)         | (points,) each           |
| s       | hyperparameter sets: lengthscales, coupling, ratios, warp   | (sets, ...)              |
| K_s     | prior covariance of the points under one set                | (sets, points, points)   |
| L_s     | its Cholesky factor; points exact, censored, then pending   | (sets, points, points)   |
| w       | weight of a set: its evidence, tempered                     | (sets,)                  |
| sigma_s | amplitude, integrated out under an inverse gamma prior      | (sets,)                  |
| mu, sd  | posterior of g at new configurations, warped units          | (sets, configurations)   |

The hyperparameters are averaged over, never optimised: with 3 to 10 observations a point estimate is wrong in shape.
`hyperparameters.py` draws them: from the prior, then around the sets that explain the data best.
A pending point (a step under way) takes part in the covariance and not in the mean: it lowers the doubt where it will
tell us something, so that parallel workers spread out. A censored point is put at its mean below its bound.

Source: Rasmussen and Williams 2006; Swersky et al. 2014, arXiv:1406.3896 (freezing); Snelson et al. 2003 (warping).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dtrtrs
from scipy.special import log_ndtr, ndtr

from batchopt.search.surrogate.covariance import TREND_VARIANCE, Covariance, along, level, tilted, variance_at_end
from batchopt.search.surrogate.curves import Curves, maturity, ordered, same_points, spread, thinned
from batchopt.search.surrogate.hyperparameters import ROUNDS, Draws, Fits, HyperparameterSets, column, joined, weighed
from batchopt.search.surrogate.left_out import left_out, missing_noise
from batchopt.search.surrogate.mixture import positive_part, ranked, standard_normal
from batchopt.search.surrogate.warp import log_slope, unwarp, warp

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SHAPE, RATE = 2.0, 2.0
"""Inverse gamma prior of the squared amplitude; the values are standardised, so that it is about 1."""

SETS_BY_POINTS = ((15, 256, 64), (30, 384, 64), (60, 192, 32), (220, 32, 16), (340, 16, 16), (math.inf, 8, 8))
"""Up to so many points: how many sets the first round draws, and how many predict, which are the likeliest. Few points
leave the sets nearly alike, so that many of them have to be heard; with more points each set costs more.
"""

TEMPER = 0.6
"""Exponent of the evidence: below 1, because the model is not the truth and its certainty is not ours."""


class Surrogate:
    """The posterior, given what was observed.

    Attributes:
        heard: the trials, as rows of `Curves.x`, of which a point was kept.

    Args:
        curves: at least one point.
        prior: what is believed before anything was seen; by default all dimensions alike.
        before: of the same study, whose hyperparameters are taken where the same was observed: steps that have begun
            since make nothing more or less likely, and only narrow what is believed.

    Raises:
        ValueError: without an exact point, or with a value that is not finite.
    """

    def __init__(self, curves: Curves, *, prior: Covariance | None = None, before: Surrogate | None = None) -> None:
        if curves.censored.all() or not np.isfinite(curves.value).all():
            raise ValueError("a surrogate needs at least one exact point, and finite values only.")
        self._prior = prior or Covariance()
        curves = ordered(thinned(curves))
        self._exact = int((~curves.censored).sum())
        self._all_x = curves.x
        self._trial = np.concatenate([curves.trial, curves.pending_trial])
        self._seen, self._row = np.unique(self._trial, return_inverse=True)
        self._x = curves.x[self._seen]
        self._points_of = (self._row[:, None] == np.arange(len(self._x))).astype(float)
        self._phi = maturity(np.concatenate([curves.fidelity, curves.pending_fidelity]))
        self._known = len(curves.value)
        self.best = float(curves.value.max())
        self.spread = spread(curves.value)
        self._observed, points = curves, len(self._trial)
        self.heard: list[int] = self._seen.tolist()
        count, predict = next((count, predict) for most, count, predict in SETS_BY_POINTS if points <= most)
        self._count = count
        if before is not None and before._count == count and same_points(before._observed, curves):
            self._kept: HyperparameterSets = before._kept
            self.weight: FloatArray = before.weight
            self._hold(self._fitted(self._kept, curves))
            return
        draws = Draws(self._prior.lengths(curves.x.shape[1]), count)
        fits = [self._fitted(draws.sets(), curves)]
        for _ in range(ROUNDS):
            fits.append(self._fitted(draws.around_best(TEMPER * column(fits, "evidence")), curves))
        log_weight = draws.log_weight(TEMPER * column(fits, "evidence"))
        kept, self.weight = weighed(log_weight, predict)
        self._kept = draws.sets(kept)
        self._hold(joined(fits, kept))

    def _hold(self, fits: Fits) -> None:
        self._factor, self._white, self._sigma = fits.factor, fits.white, fits.sigma
        self._scale, self._center, self._spread = fits.scale, fits.center, fits.spread
        # L^-1 P, where P tells each point's trial: all points of a trial covary alike with a final value.
        self._half = self._halved(self._points_of)

    def _fitted(self, sets: HyperparameterSets, curves: Curves) -> Fits:
        """The posterior under each set, and how well the set explains what was observed."""
        scale = (sets.warp_scale * self.spread)[:, None]
        z: FloatArray = warp(curves.value, self.best, scale)
        jacobian = log_slope(curves.value[: self._exact], self.best, scale).sum(axis=1)
        center, spread = z.mean(axis=1, keepdims=True), z.std(axis=1, keepdims=True)
        spread = np.where(spread > 1e-9, spread, 1.0)
        z = (z - center) / spread - self._prior.mean(self._x)[self._row[: self._known]]
        jacobian -= self._exact * np.log(spread[:, 0])

        factor = np.asarray(
            np.linalg.cholesky(self._prior.of_points(sets, self._x, self._row, self._phi)), dtype=np.float64
        )
        exact, known = self._exact, self._known
        white = np.zeros((len(z), factor.shape[1]))
        for s in range(len(z)):
            white[s, :exact] = dtrtrs(factor[s, :exact, :exact], z[s, :exact], lower=1)[0]
        log_det = np.log(np.diagonal(factor[:, :exact, :exact], axis1=1, axis2=2)).sum(axis=1)
        rate = RATE + 0.5 * (white**2).sum(axis=1)
        shape = SHAPE + 0.5 * exact
        evidence = -log_det - shape * np.log(rate) + jacobian
        if exact < known:
            evidence += self._impute(z, factor, white, rate / (shape - 1.0))
        return Fits(evidence, factor, white, np.sqrt(rate / (shape - 1.0)), scale, center, spread)

    def _impute(self, z: FloatArray, factor: FloatArray, white: FloatArray, variance: FloatArray) -> FloatArray:
        """Put each censored point at its mean below its bound, given the exact ones; fills `white`.

        Returns:
            The log probability of the bounds, each taken for itself, shape (sets,).

        Source: the mean of a truncated normal; one step of the EM algorithm for censored regression.
        """
        exact, known = self._exact, self._known
        mean = (factor[:, exact:known, :exact] @ white[:, :exact, None])[..., 0]
        sd = np.sqrt(variance[:, None] * (factor[:, exact:known, exact:known] ** 2).sum(axis=2))
        bound = (z[:, exact:] - mean) / sd
        log_chance = log_ndtr(bound)
        below = sd * np.exp(-0.5 * bound**2 - log_chance) / math.sqrt(2.0 * math.pi)
        for s in range(len(z)):
            white[s, exact:known] = dtrtrs(factor[s, exact:known, exact:known], -below[s], lower=1)[0]
        return np.asarray(log_chance.sum(axis=1))

    def _halved(self, right: FloatArray) -> FloatArray:
        """L^-1 times columns that all sets share, shape (points, columns); (sets, points, columns)."""
        # Lower and in rows is upper and in columns, as LAPACK wants it: without a copy of each factor.
        right = np.asfortranarray(right)
        return np.stack([dtrtrs(one.T, right, lower=0, trans=1)[0] for one in self._factor])

    def at_end(
        self, x: FloatArray, *, own: float = 0.0, trials: Sequence[int] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Posterior of m + g, the noise-free final value of configurations.

        Args:
            x: in the unit cube, shape (configurations, dims).
            own: part of the variance from run to run that is added, as what a configuration may have for itself.
            trials: that trained them, row numbers of `Curves.x`, -1 where none did: by the same part of how far its
                end lay from what is believed, the configuration itself is better or worse. The doubt stays: the part
                is not known.

        Returns:
            Mean and standard deviation in warped units, shape (sets, configurations) each.
        """
        mean, sd = self._condition(self._half @ self._cross(x), x)
        if trials is not None:
            mean = mean + own * self._run_luck[:, trials]
        return mean, np.sqrt(sd**2 + own * self._luck()[:, None] ** 2) if own else sd

    def of_trials(self, trials: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Posterior of m + g + r, the final value of trials already started, its noise left out.

        Args:
            trials: row numbers of `Curves.x`.

        Returns:
            Mean and standard deviation in warped units, shape (sets, trials) each.
        """
        rows = np.asarray(trials, dtype=np.int64)
        run = self._kept.run[:, None, None] * (self._seen[:, None] == rows)
        x = self._all_x[rows]
        return self._condition(self._half @ (self._cross(x) + run), x, self._kept.run[:, None])

    def gain_of_run(
        self, x: FloatArray, row: int, *, fidelity: float = 1.0, beyond: float = 0.0
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What one run at each configuration may add, by what it teaches of it and of the best one's.

        The knowledge gradient of the pair: how far the run would move the difference of the two posterior means, and
        what the better of them gains by that. A neighbour of the best moves both alike, and is worth little, though
        its expected improvement is not; and a noisy run moves less than its doubt. A run that ends early moves less
        still, by how much early values tell of final ones in this study.

        Args:
            x: in the unit cube, shape (configurations, dims).
            row: the best trial, a row number of `Curves.x`.
            fidelity: where the run ends, in (0, 1].
            beyond: what a gain is counted from, in parts of the spread of the values.

        Returns:
            Gains in the units of the values, shape (configurations,); mean and standard deviation as `at_end`.

        Source: Frazier, Powell and Dayanik 2009, The knowledge-gradient policy for correlated normal beliefs.
        """
        best = self._all_x[[row]]
        cross = self._cross(x)
        told, told_best = self._half @ cross, self._half @ self._cross(best)
        mean, sd = self._condition(told, x)
        mean_best, _ = self._condition(told_best, best)
        moved = self._moved(x, cross, told, best, told_best, float(maturity(fidelity)))
        unit = self._spread * self._slope_at(mean_best)
        gain = positive_part(mean - mean_best - beyond * self.spread / unit, np.maximum(moved, 1e-9)) * unit
        return np.asarray(self.weight @ gain), mean, sd

    def _moved(
        self, x: FloatArray, cross: FloatArray, told: FloatArray, best: FloatArray, told_best: FloatArray, phi: float
    ) -> FloatArray:
        """How far a run that ends at phi would move the difference of two final values, its standard deviation.

        Returns:
            Shape (sets, configurations).
        """
        sets, at = self._kept, float(along(phi, phi))
        # How what the run still gains after phi varies with what the trials still gained.
        remaining = sets.curve[:, None, None] * (cross - level(self._x, x))
        remaining += TREND_VARIANCE * (1.0 + tilted(self._x, x))
        # A run's value covaries with a point of a trial by cross + along * remaining.
        weighted = self._points_of * along(self._phi, phi)[:, None]
        of_run = told + self._halved(weighted) @ remaining
        own = (sets.run + sets.noise * (1.0 + phi) + at * (sets.curve + sets.slope))[:, None]
        own = own + at * TREND_VARIANCE * (1.0 + ((x - 0.5) ** 2).sum(axis=1))
        variance = variance_at_end(x) + own - np.einsum("spc,spc->sc", of_run, of_run)
        prior = variance_at_end(x) - self._prior.matern(sets, x, best)[:, :, 0] - level(x, best)[:, 0]
        shared = prior - np.einsum("spc,spc->sc", told - told_best, of_run)
        return np.asarray(self._sigma[:, None] * np.abs(shared) / np.sqrt(np.maximum(variance, 1e-12)))

    def joint_at_end(self, x: FloatArray, *, own: float | FloatArray = 0.0) -> tuple[FloatArray, FloatArray]:
        """Posterior of the final values of configurations together; arguments as of `at_end`.

        Returns:
            Mean and covariance in warped units, shapes (sets, configurations) and (sets, configurations,
            configurations); what configurations have for themselves is independent.
        """
        told = self._half @ self._cross(x)
        mean, _ = self._condition(told, x)
        prior = self._prior.matern(self._kept, x, x) + level(x, x)
        covariance = self._sigma[:, None, None] ** 2 * (prior - told.transpose(0, 2, 1) @ told)
        covariance += self._luck()[:, None, None] ** 2 * np.diag(np.broadcast_to(own, len(x)))
        return mean, covariance

    def run_sd(self, x: FloatArray) -> float:
        """Standard deviation of one run's final value around the worth of a configuration, shape (1, dims)."""
        mean, _ = self.at_end(x)
        return float(self.weight @ (self._luck()[:, None] * self._spread * self._slope_at(mean))[:, 0])

    def _luck(self) -> FloatArray:
        """Standard deviation from run to run at the end, in warped units, shape (sets,)."""
        return np.asarray(np.sqrt(self._sigma**2 * (self._kept.run + self._kept.noise) + self._missing_noise))

    @cached_property
    def _run_luck(self) -> FloatArray:
        """Posterior mean of r and the noise of its end by rows of `Curves.x`, a 0 last; shape (sets, trials + 1)."""
        weights = np.stack([dtrtrs(one.T, z, lower=0)[0] for one, z in zip(self._factor, self._white, strict=True)])
        ends = (self._phi == 0.0) & (np.arange(len(self._phi)) < self._exact)
        luck = np.zeros((len(weights), len(self._all_x) + 1))
        luck[:, self._seen] = self._kept.run[:, None] * (weights @ self._points_of)
        luck[:, self._seen] += self._kept.noise[:, None] * (weights[:, ends] @ self._points_of[ends])
        return luck

    @cached_property
    def _missing_noise(self) -> FloatArray:
        """Variance from run to run near the best that the sets do not account for, in warped units, shape (sets,)."""
        exact, finals = self._exact, np.flatnonzero(self._phi[: self._exact] == 0.0)
        far, variance = left_out(self._factor[:, :exact, :exact], self._white[:, :exact], self._row[:exact], finals)
        z = (self._factor[:, finals, :exact] @ self._white[:, :exact, None])[..., 0]
        z += self._prior.mean(self._x)[self._row[finals]]
        expected, ended = self.weight @ self.unwarped(np.stack([z - far, z]))
        return missing_noise(far, self._sigma[:, None] ** 2 * variance, expected, ended)

    def _cross(self, x: FloatArray) -> FloatArray:
        """Prior covariance of the trials' final values with those of configurations, (sets, trials, configurations)."""
        return self._prior.matern(self._kept, self._x, x) + level(self._x, x)

    def _slope_at(self, mean: FloatArray) -> FloatArray:
        """Units of the values in a unit of the warp, at these warped values, shape (sets, configurations)."""
        return self._scale + np.maximum(self.best - self.unwarped(mean), 0.0)

    def _condition(self, told: FloatArray, x: FloatArray, own: npt.ArrayLike = 0.0) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation at x.

        Args:
            told: covariances with the points, whitened, shape (sets, points, configurations).
            x: the configurations.
            own: variances of their own.
        """
        mean = (self._white[:, None, :] @ told)[:, 0] + self._prior.mean(x)
        variance = np.add(variance_at_end(x), own) - np.einsum("spc,spc->sc", told, told)
        return mean, self._sigma[:, None] * np.sqrt(np.maximum(variance, 1e-12))

    def expected_improvement(self, mean: FloatArray, sd: FloatArray, threshold: float) -> FloatArray:
        """Expected gain over a threshold, averaged over the sets.

        Args:
            mean, sd: from `at_end` or `of_trials`, shape (sets, configurations) each.
            threshold: a value, in the units of the values.

        Returns:
            In the units of the values, shape (configurations,). The warp's slope at the threshold is taken for all.
        """
        goal = (warp(np.array([threshold]), self.best, self._scale) - self._center) / self._spread
        slope = self._scale + np.maximum(self.best - threshold, 0.0)
        return np.asarray(self.weight @ (positive_part(mean - goal, sd) * self._spread * slope))

    def unwarped(self, z: FloatArray) -> FloatArray:
        """Warped units back to the units of the values; shape (sets, configurations)."""
        return unwarp(z * self._spread + self._center, self.best, self._scale)

    def chance_above(self, mean: FloatArray, sd: FloatArray, threshold: float) -> FloatArray:
        """Probability of a final value above a threshold, shape (configurations,)."""
        goal = (warp(np.array([threshold]), self.best, self._scale) - self._center) / self._spread
        return np.asarray(self.weight @ ndtr((mean - goal) / sd))

    def quantiles(self, mean: FloatArray, sd: FloatArray, levels: Sequence[float]) -> FloatArray:
        """Quantiles of the mixture over the sets, in the units of the values, shape (levels, configurations)."""
        grid = standard_normal(len(mean))
        spread_out = mean[:, None] + sd[:, None] * grid[:, None]
        flat = self.unwarped(spread_out.reshape(len(mean), -1)).reshape(-1, mean.shape[1])
        return ranked(flat, np.repeat(self.weight / len(grid), len(grid)), levels)
