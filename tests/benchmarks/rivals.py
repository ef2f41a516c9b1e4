"""The rivals, behind the same seam as our scheduler: `next` gives a step, `tell` an epoch of it.

Each is used as its documentation shows, with its defaults. Training that diverges is told to all of them as the worst
value seen so far, which is kinder than what their users usually do (a failed trial teaches them nothing). GPSampler
and KerasTuner need the `bench` extra.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import optuna
from batchopt.search import BatchSizeSampler, Scheduler, Step
from batchopt.search.steps import Infeasibility
from families import Landscape
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.stats import norm, qmc

FloatArray = npt.NDArray[np.float64]

GRID_SIDE = 4
"""A 4 x 4 grid, then 8 x 8, and so on: what a person does by hand."""


class Search(Protocol):
    """What the harness drives."""

    def next(self) -> Step | None: ...

    def tell(self, trial: int, epoch: int, value: float, seconds: float) -> None: ...

    def infeasible(self, trial: int, reason: Infeasibility) -> None: ...


class OneByOne:
    """Whole trials, one after the other, proposed by `propose` and answered by `answer`."""

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.sign = 1.0 if landscape.direction == "maximize" else -1.0
        self._trial = -1
        self._worst = math.inf

    def propose(self) -> tuple[int, float]:
        raise NotImplementedError

    def answer(self, value: float) -> None:
        """Learn the final value of the configuration proposed last; larger is better."""

    def next(self) -> Step | None:
        self._trial += 1
        batch_size, learning_rate = self.propose()
        return Step(self._trial, batch_size, learning_rate, self.landscape.max_epochs)

    def tell(self, trial: int, epoch: int, value: float, seconds: float) -> None:
        self._worst = min(self._worst, self.sign * value)
        if epoch == self.landscape.max_epochs:
            self.answer(self.sign * value)

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        self.answer(self._worst if math.isfinite(self._worst) else -1e3)


class Random(OneByOne):
    """Uniform in the logarithms of batch size and rate."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape)
        self._rng = np.random.default_rng(seed)

    def propose(self) -> tuple[int, float]:
        return self.landscape.space.from_unit(self._rng.random(2))


class Grid(OneByOne):
    """4 x 4 cells in random order; where that is not enough, 8 x 8, and so on."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape)
        self._cells = self._walk(np.random.default_rng(seed))

    def propose(self) -> tuple[int, float]:
        return next(self._cells)

    def _walk(self, rng: np.random.Generator) -> Any:
        for doubling in itertools.count():
            units = np.linspace(0, 1, GRID_SIDE * 2**doubling)
            cells = [(u, v) for u in units for v in units]
            for index in rng.permutation(len(cells)):
                yield self.landscape.space.from_unit(cells[index])


class Optuna:
    """An Optuna sampler and pruner, asked and told as its documentation shows."""

    def __init__(self, landscape: Landscape, sampler: BaseSampler, pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space = landscape.space
        self._study = optuna.create_study(direction=landscape.direction, sampler=sampler, pruner=pruner)
        self._distributions = {
            "batch_size": IntDistribution(space.smallest, space.largest, log=True),
            "learning_rate": FloatDistribution(*space.learning_rate, log=True),
            **space.extra,
        }
        self._epochs = landscape.max_epochs
        self._each_epoch = not isinstance(pruner, NopPruner)
        self._worst_of: Callable[[float, float], float] = min if landscape.direction == "maximize" else max
        self._worst: float | None = None
        self._trial: optuna.Trial | None = None
        self._trained = 0

    def next(self) -> Step | None:
        if self._trial is None:
            self._trial, self._trained = self._study.ask(self._distributions), 0
        until = self._trained + 1 if self._each_epoch else self._epochs
        params = dict(self._trial.params)
        size, rate = params.pop("batch_size"), params.pop("learning_rate")
        return Step(self._trial.number, size, rate, until, self._trained, params)

    def tell(self, trial: int, epoch: int, value: float, seconds: float) -> None:
        assert self._trial is not None
        self._trained = epoch
        self._worst = value if self._worst is None else self._worst_of(self._worst, value)
        self._trial.report(value, epoch)
        if epoch == self._epochs:
            self._study.tell(self._trial, value)
            self._trial = None
        elif self._each_epoch and self._trial.should_prune():
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
            self._trial = None

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        state = optuna.trial.TrialState.FAIL if self._worst is None else None
        self._study.tell(self._trial, self._worst, state=state)
        self._trial = None


class PlainGaussianProcess(OneByOne):
    """The textbook: whole trials, a Gaussian process of the likeliest hyperparameters, expected improvement.

    Matern 5/2 with a lengthscale for each dimension; five trials spread out first; the best of 2,000 points.
    """

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape)
        self._rng = np.random.default_rng(seed)
        self._first = qmc.Sobol(2, rng=np.random.default_rng(seed)).random(8)[:5]
        self._x: list[FloatArray] = []
        self._y: list[float] = []

    def propose(self) -> tuple[int, float]:
        point = self._first[len(self._y)] if len(self._y) < len(self._first) else self._best_point()
        size, rate = self.landscape.space.from_unit(point)
        self._x.append(self.landscape.space.to_unit(size, rate))
        return size, rate

    def answer(self, value: float) -> None:
        self._y.append(value)

    def _best_point(self) -> FloatArray:
        x, y = np.array(self._x), np.array(self._y)
        y = (y - y.mean()) / (y.std() or 1.0)
        starts = (np.array([math.log(length), math.log(length), math.log(1e-4)]) for length in (0.2, 0.5, 1.0))
        bounds = [(math.log(0.05), math.log(3.0))] * 2 + [(math.log(1e-6), 0.0)]
        fits = [minimize(_misfit, start, args=(x, y), bounds=bounds, method="L-BFGS-B") for start in starts]
        best = min(fits, key=lambda fit: fit.fun).x
        spread = self._rng.random((1600, 2))
        faces = self._rng.random((200, 2))
        faces[np.arange(200), self._rng.integers(0, 2, 200)] = self._rng.integers(0, 2, 200)
        near = np.clip(x[y.argmax()] + 0.05 * self._rng.standard_normal((200, 2)), 0.0, 1.0)
        points = np.concatenate([spread, faces, near, [[0, 0], [0, 1], [1, 0], [1, 1]]])
        factor, weights, scale = _plain_fit(best, x, y)
        cross = _plain_kernel(best, points, x)
        mean = cross @ weights
        half = solve_triangular(factor, cross.T, lower=True)
        sd = np.sqrt(np.maximum(scale * (1.0 - (half**2).sum(axis=0)), 1e-12))
        standard = (mean - y.max()) / sd
        return np.asarray(points[(sd * (standard * norm.cdf(standard) + norm.pdf(standard))).argmax()])


def _plain_kernel(log: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    r = np.sqrt(5.0) * cdist(a / np.exp(log[:2]), b / np.exp(log[:2]))
    return np.asarray((1.0 + r + r**2 / 3.0) * np.exp(-r))


def _plain_fit(log: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Cholesky factor of the correlations, weights of the values, and the variance that is likeliest."""
    factor = np.linalg.cholesky(_plain_kernel(log, x, x) + (np.exp(log[2]) + 1e-8) * np.eye(len(x)))
    weights = cho_solve((factor, True), y)
    return factor, weights, float(y @ weights) / len(y)


def _misfit(log: FloatArray, x: FloatArray, y: FloatArray) -> float:
    """Minus the log likelihood, the variance at its likeliest; a mild prior keeps lengthscales near half a side."""
    factor, _, scale = _plain_fit(log, x, y)
    prior = float((((log[:2] - math.log(0.5)) / 1.0) ** 2).sum() / 2)
    return float(np.log(np.diag(factor)).sum() + len(y) * math.log(max(scale, 1e-12)) / 2) + prior


class KerasTuner(OneByOne):
    """KerasTuner's Bayesian optimization, driven through its oracle."""

    def __init__(self, landscape: Landscape, seed: int) -> None:
        super().__init__(landscape)
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras_tuner

        logging.getLogger("keras_tuner").setLevel(logging.ERROR)
        space = landscape.space
        parameters = keras_tuner.HyperParameters()
        parameters.Int("batch_size", space.smallest, space.largest, sampling="log")
        parameters.Float("learning_rate", *space.learning_rate, sampling="log")
        self._folder = tempfile.TemporaryDirectory()
        self._oracle = keras_tuner.oracles.BayesianOptimizationOracle(
            objective=keras_tuner.Objective("value", "max"), max_trials=10_000, hyperparameters=parameters, seed=seed
        )
        self._oracle._set_project_dir(self._folder.name, "study")
        self._oracle.verbose = 0
        self._proposed: Any = None

    def propose(self) -> tuple[int, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._proposed = self._oracle.create_trial("tuner0")
        values = self._proposed.hyperparameters.values
        return int(values["batch_size"]), float(values["learning_rate"])

    def answer(self, value: float) -> None:
        self._oracle.update_trial(self._proposed.trial_id, {"value": value})
        self._proposed.status = "COMPLETED"
        self._oracle.end_trial(self._proposed)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.samplers.GPSampler(seed=seed)


def ours(landscape: Landscape, seed: int) -> Search:
    """Our scheduler, told nothing but the space, the epochs and the direction."""
    return Scheduler(landscape.space, max_epochs=landscape.max_epochs, direction=landscape.direction, seed=seed)


def ours_to_the_end(landscape: Landscape, seed: int, **options: Any) -> Scheduler:
    """The same without an end of its own."""
    kept = {"max_epochs": landscape.max_epochs, "direction": landscape.direction, "seed": seed, "until": False}
    return Scheduler(landscape.space, **{**kept, **options})


OURS = "batchopt"
RIVALS: dict[str, Callable[[Landscape, int], Search]] = {
    "random": Random,
    "grid": Grid,
    "tpe": lambda landscape, seed: Optuna(landscape, TPESampler(seed=seed), NopPruner()),
    "tpe+hyperband": lambda landscape, seed: Optuna(landscape, TPESampler(seed=seed), HyperbandPruner()),
    "tpe+median": lambda landscape, seed: Optuna(landscape, TPESampler(seed=seed), MedianPruner()),
    "gp": lambda landscape, seed: Optuna(landscape, _gp(seed), NopPruner()),
    "gp-ei": PlainGaussianProcess,
    "kerastuner": KerasTuner,
}
SEARCHES: dict[str, Callable[[Landscape, int], Search]] = {
    OURS: ours,
    "on": ours_to_the_end,
    "whole": lambda landscape, seed: ours_to_the_end(landscape, seed, pause=False),
    "sampler": lambda landscape, seed: Optuna(landscape, BatchSizeSampler(seed=seed), NopPruner()),
    **RIVALS,
}
"""Ours as it is; going on where it would end; without pauses; its sampler alone for Optuna; and the rivals."""
