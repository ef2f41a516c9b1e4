"""`BatchSizeSampler`: the surrogate behind Optuna's own interface, for any Optuna script.

It keeps no state: what trial n gets follows from (seed, n) and the trials that are stored, so that a study which was
interrupted goes on as it would have. All dimensions are proposed jointly. Trials that were pruned teach by their
intermediate values, trials that are running by where they are; constraints are learned, and the one called `memory` is
known to grow with the batch size. Several objectives become one by weights that differ from trial to trial.
"""

from __future__ import annotations

import math
import secrets
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler as _RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from batchopt.search.surrogate.candidates import apart, candidates
from batchopt.search.surrogate.covariance import Covariance
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.surrogate.gp import Surrogate
from batchopt.search.surrogate.threads import on_one_thread

FloatArray = npt.NDArray[np.float64]

MEMORY = "memory"
"""The constraint (bytes over) that grows with the batch size: where one does not fit, no larger one is proposed."""

CURVE_POINTS = (0.125, 0.25, 0.5)
"""Fidelities at which a curve is looked at, besides its last point."""

AUGMENTATION = 0.05
"""Of the weighted sum added to the weighted minimum of several objectives (Knowles 2006, ParEGO)."""

EXPLORE_EVERY = 12
"""Every so many trials goes where nothing was tried, whatever the surrogate believes."""

NEAREST = 5
"""How many of the best trials are looked around."""


class BatchSizeSampler(BaseSampler):
    """Bayesian optimization over batch size, learning rate, and whatever else a script suggests.

    Args:
        seed: of the study; None draws one. The same seed and the same stored trials give the same proposal.
        batch_size, learning_rate: the names of these two parameters. Where both are there and logarithmic, how the
            best rate moves with the batch size is learned.
    """

    def __init__(
        self, seed: int | None = None, *, batch_size: str = "batch_size", learning_rate: str = "learning_rate"
    ) -> None:
        self._seed = secrets.randbits(32) if seed is None else seed
        self._batch_size = batch_size
        self._learning_rate = learning_rate

    def reseed_rng(self) -> None:
        """Nothing to do: every trial has its own numbers, whoever draws them."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = intersection_search_space(study.get_trials(deepcopy=False), include_pruned=True)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        cube = Cube({param_name: param_distribution})
        if trial.number == 0:
            # One well-placed first trial instead of random ones: the middle, on the parameter's own scale.
            return cube.decode(cube.fill(np.full((1, 1), 0.5)))[0][param_name]
        seed = np.random.SeedSequence([self._seed, trial.number, zlib.crc32(param_name.encode())]).generate_state(1)
        uniform = _RandomSampler(seed=int(seed[0]))
        return uniform.sample_independent(study, trial, param_name, param_distribution)

    @on_one_thread
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        rng = np.random.default_rng([self._seed, trial.number])
        cube = Cube(search_space)
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = [
            other
            for other in study.get_trials(deepcopy=False, states=states)
            if other.number != trial.number
            and all(other.distributions.get(name) == distribution for name, distribution in search_space.items())
        ]
        values = _points(trials, study.directions, rng)
        x = cube.encode(other.params for other in trials)
        points, configurations = self._proposals(cube, x, values, trials, rng)
        worth = self._worth(cube, x, values, trials, points, explore=trial.number % EXPLORE_EVERY == EXPLORE_EVERY - 1)
        return configurations[int(worth.argmax())]

    def _proposals(
        self,
        cube: Cube,
        x: FloatArray,
        values: Sequence[Sequence[tuple[float, float]]],
        trials: Sequence[FrozenTrial],
        rng: np.random.Generator,
    ) -> tuple[FloatArray, list[dict[str, Any]]]:
        """Candidates that the space holds, apart from trials there are and from sizes that do not fit."""
        last = np.array([curve[-1][1] if curve else -math.inf for curve in values])
        raw = candidates(cube, x[np.argsort(-last, kind="stable")[:NEAREST]], rng)
        configurations = cube.decode(raw)
        largest = self._largest_that_may_fit(trials)
        fitting = [c for c in configurations if c.get(self._batch_size, 0) < largest] or configurations
        points = cube.encode(fitting)
        new = apart(points, x)
        kept = np.flatnonzero(new) if new.any() else np.arange(len(points))
        return points[kept], [fitting[index] for index in kept]

    def _largest_that_may_fit(self, trials: Sequence[FrozenTrial]) -> float:
        sizes = [
            other.params[self._batch_size]
            for other in trials
            if other.constraints.get(MEMORY, 0.0) > 0 and self._batch_size in other.params
        ]
        return min(sizes, default=math.inf)

    def _worth(
        self,
        cube: Cube,
        x: FloatArray,
        values: Sequence[Sequence[tuple[float, float]]],
        trials: Sequence[FrozenTrial],
        points: FloatArray,
        *,
        explore: bool,
    ) -> FloatArray:
        """What each candidate is worth, shape (candidates,): the best one is proposed."""
        feasible = np.ones(len(points))
        violation = [[(1.0, -max(other.constraints.values()))] if other.constraints else [] for other in trials]
        if any(curve[0][1] < 0 for curve in violation if curve):
            model = Surrogate(_curves(x, violation, []))
            feasible = model.chance_above(*model.at_end(points), 0.0)
        if explore and len(x):
            return np.asarray(feasible * ((points[:, None] - x) ** 2).sum(-1).min(axis=1))
        if not any(values):
            return feasible
        running = [row for row, other in enumerate(trials) if other.state == TrialState.RUNNING]
        surrogate = Surrogate(_curves(x, values, running), prior=Covariance(self._rotation(cube)))
        allowed = [
            curve[-1][1]
            for curve, other in zip(values, trials, strict=True)
            if other.state == TrialState.COMPLETE and curve and all(c <= 0 for c in other.constraints.values())
        ]
        threshold = max(allowed) if allowed else min(curve[-1][1] for curve in values if curve)
        return np.asarray(feasible * surrogate.expected_improvement(*surrogate.at_end(points), threshold))

    def _rotation(self, cube: Cube) -> tuple[int, int, float] | None:
        sizes, rates = cube.distribution(self._batch_size), cube.distribution(self._learning_rate)
        if not isinstance(sizes, IntDistribution | FloatDistribution) or not isinstance(rates, FloatDistribution):
            return None
        if not (sizes.log and rates.log) or rates.single():
            return None
        ratio = math.log(sizes.high / sizes.low) / math.log(rates.high / rates.low)
        return cube.column(self._batch_size), cube.column(self._learning_rate), ratio


def _points(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """What each trial taught: (fidelity, value) pairs by fidelity, larger values better; empty where nothing."""
    signs = np.array([1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in directions])
    if len(signs) > 1:
        return _scalarised(trials, signs, rng)
    steps = [step for other in trials for step in other.intermediate_values]
    offset = 1 if min(steps, default=1) < 1 else 0
    length = max(steps, default=0) + offset
    curves = []
    for other in trials:
        curve = {(step + offset) / length: value for step, value in other.intermediate_values.items() if step >= 0}
        if other.state == TrialState.COMPLETE:
            curve[1.0] = other.values[0]
        curves.append([(share, float(signs[0]) * curve[share]) for share in _looked_at(curve)])
    finite = [value for curve in curves for _, value in curve if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return [[(t, min(max(y, low), high)) for t, y in curve if not math.isnan(y)] for curve in curves]


def _looked_at(curve: Mapping[float, float]) -> list[float]:
    """The fidelities of a curve that are used: the last before each of `CURVE_POINTS`, and the last of all."""
    shares = sorted(share for share in curve if share > 0)
    marks = (*CURVE_POINTS, 1.0)
    found = (max((share for share in shares if share <= mark), default=None) for mark in marks)
    return sorted({share for share in found if share is not None})


def _scalarised(
    trials: Sequence[FrozenTrial], signs: FloatArray, rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """Several objectives as one: the augmented Chebyshev scalarisation, its weights drawn for this trial.

    Source: Knowles 2006, ParEGO, IEEE Transactions on Evolutionary Computation 10(1).
    """
    done = [row for row, other in enumerate(trials) if other.state == TrialState.COMPLETE]
    curves: list[list[tuple[float, float]]] = [[] for _ in trials]
    if not done:
        return curves
    values = signs * np.array([trials[row].values for row in done], dtype=float)
    for column in values.T:
        finite = column[np.isfinite(column)]
        np.clip(column, finite.min(initial=math.inf), finite.max(initial=-math.inf), out=column)
        column[~np.isfinite(column)] = 0.0
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    unit = (values - low) / np.where(span > 0, span, 1.0)
    weighted = rng.dirichlet(np.ones(len(signs))) * (unit - 1.0)
    scalar = weighted.min(axis=1) + AUGMENTATION * weighted.sum(axis=1)
    for row, value in zip(done, scalar, strict=True):
        curves[row] = [(1.0, float(value))]
    return curves


def _curves(x: FloatArray, values: Sequence[Sequence[tuple[float, float]]], running: Sequence[int]) -> Curves:
    flat = [(row, t, y) for row, curve in enumerate(values) for t, y in curve]
    return Curves(
        x=x,
        trial=np.array([row for row, _, _ in flat], dtype=np.int64),
        fidelity=np.array([t for _, t, _ in flat]),
        value=np.array([y for _, _, y in flat]),
        censored=np.zeros(len(flat), dtype=bool),
        pending_trial=np.array(running, dtype=np.int64),
        pending_fidelity=np.ones(len(running)),
    )
