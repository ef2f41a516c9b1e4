"""What can be done next, and what it is worth: the gain that a step promises over the seconds that it still needs.

A new configuration is worth what its first rung may add to the best that is in sight, by what it teaches of both: the
best complete trial, or a paused one that is expected to end above it. A paused trial is worth what it may add to the
same; the favourite among them, what it may add to the best complete trial. `decision.py` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchopt.question.space import BATCH_SIZE, SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.run_lengths import RunLengths
from batchopt.search.steps import Trial
from batchopt.search.surrogate.candidates import apart, candidates
from batchopt.search.surrogate.covariance import Covariance
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.surrogate.gp import Surrogate
from batchopt.search.trials import rotation
from batchopt.search.view import Standing

FloatArray = npt.NDArray[np.float64]

COST_POWER = 0.4
"""Gain is divided by seconds to this power: at 1 the search creeps along the cheap side of the space."""

WORTHWHILE = 0.01
"""Gains are counted from this part of the spread of values: which of two neighbours is better is worth no whole run."""

CLEARLY, MATTERS = 0.01, 0.002
"""Clearly better, and better by anything that matters, in parts of the spread of the values."""

INTERIOR_TRIALS, INTERIOR = 4, 0.12
"""The first new configurations keep this distance from the faces: with one observation every corner looks unknown."""

FROM_RATES = 0.2
"""And this one where a metric is searched, from both ends of every dimension but the batch size: at either end of the
rates most models train badly, while the smallest batch size is the best on 33 of 48 real problems."""

NEAREST, AMONG = 5, 20
"""How many of the best trials are looked around, and among how many they are chosen."""

ENOUGH = 8
"""Candidates next to trials that were made are left out, unless fewer than this are left."""


@dataclass(frozen=True)
class Candidate:
    """A step that could be taken.

    Attributes:
        trial: the paused trial; None for a new configuration.
        params: the configuration by dimension.
        seconds: expected until the trial's end, the chance of an earlier end counted.
        gain: expected, in the units of the values.
        hope: probability to end above the best in sight by anything that matters.
    """

    trial: Trial | None
    params: Mapping[str, Any]
    seconds: float
    gain: float
    hope: float

    @property
    def worth(self) -> float:
        """What the options are compared by."""
        return float(self.gain / self.seconds**COST_POWER)


class Choices:
    """All that can be done next, as the evidence stands.

    Attributes:
        trials: all of them, by number.
        first_rung, max_epochs: where a new trial is first thought over, and where it ends.
        clearly, matters: what is clearly better, and better by anything that matters, in the units of the values.
        complete: the trials that were trained to the end.
        contenders: those of them that the surrogate hears: all, or where there are hundreds the best.
        incumbent: what the best of them is worth, larger is better.
        in_sight: the same, or what the favourite among the paused trials is expected to reach.
        paused: the paused trials as options.

    Args:
        trials: in any state; row i of `curves.x` is trial i.
        curves: the points of these trials.
        space, cube: what may be tried.
        rungs: epochs at which a trial is thought over, the last being all of them.
        sign: 1 where larger values are better, -1 where smaller ones are.
        cost: seconds per epoch by batch size.
        fitted: whether the values are a metric's alone, of which other models have told something.
        before: of the same study, thought over a moment ago.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        curves: Curves,
        space: SearchSpace,
        cube: Cube,
        *,
        rungs: Sequence[int],
        sign: float,
        cost: EpochCost,
        fitted: bool,
        before: Choices | None = None,
    ) -> None:
        self.trials = trials
        self._curves = curves
        self._space = space
        self._cube = cube
        self.first_rung, self.max_epochs = rungs[0], rungs[-1]
        self._sign = sign
        self._cost = cost
        self._fitted = fitted
        self._lengths = RunLengths(trials, cube, max_epochs=self.max_epochs)
        known: Surrogate | None = None if before is None else before._surrogate
        prior = Covariance(rotation(space, cube), fitted=fitted)
        self._surrogate: Surrogate = Surrogate(curves, prior=prior, before=known)
        self.complete = [trial for trial in trials if trial.state == "complete"]
        # Whoever is not among the hundreds that are heard is the best of nothing, and asking costs as much as for them.
        rows = [row for row, trial in enumerate(trials) if trial.state == "complete"]
        heard = set(self._surrogate.heard)
        self._contending = [row for row in rows if row in heard] or rows
        self.contenders = [trials[row] for row in self._contending]
        self.spread = self._surrogate.spread
        self.clearly = CLEARLY * self.spread
        self._best_row, self.incumbent = self._incumbent()
        self.in_sight = self.incumbent
        self.matters = MATTERS * self.spread
        self.paused = self._continuing()

    def _incumbent(self) -> tuple[int, float]:
        """The best complete configuration's row and worth; before there is one, what the best reaches almost surely."""
        rows = self._contending
        if rows:
            # The configuration and not its run: a lucky run must not end the search.
            values = self._worth(self._curves.x[rows])
        else:
            rows = sorted({int(row) for row in self._curves.trial})
            values = self._surrogate.quantiles(*self._surrogate.of_trials(rows), [0.05])[0]
        return rows[int(values.argmax())], float(values.max())

    def _continuing(self) -> list[Candidate]:
        rows = [row for row, trial in enumerate(self.trials) if trial.state == "paused"]
        if not rows:
            return []
        mean, sd = self._surrogate.of_trials(rows)
        worthwhile = WORTHWHILE * self._surrogate.spread
        gains = self._surrogate.expected_improvement(mean, sd, self.incumbent + worthwhile)
        middle = self._surrogate.quantiles(mean, sd, [0.5])[0]
        favourite = int(middle.argmax())
        if middle[favourite] > self.incumbent:
            self._best_row, self.in_sight = rows[favourite], float(middle[favourite])
            own = gains[favourite]
            gains = self._surrogate.expected_improvement(mean, sd, self.in_sight + worthwhile)
            gains[favourite] = own
        hopes = self._surrogate.chance_above(mean, sd, self.incumbent + self.matters)
        options, lengths = [], self._lengths(self._curves.x[rows])
        for row, length, *figures in zip(rows, lengths, gains, hopes, strict=True):
            trial = self.trials[row]
            seconds = self._cost(trial.batch_size) * max(float(length) - trial.epochs, 1.0)
            options.append(Candidate(trial, trial.params, seconds, *map(float, figures)))
        return options

    def starting(self, rng: np.random.Generator, *, max_batch_size: int | None) -> list[Candidate]:
        """New configurations; empty where the space holds none that was not tried.

        Args:
            rng: decides which are looked at.
            max_batch_size: what this machine holds, in examples; None for no limit.
        """
        tried = self._curves.x
        configurations, points = self._candidates(rng, max_batch_size)
        new = np.flatnonzero(apart(points, tried))
        if len(new) < ENOUGH:
            new = np.flatnonzero(apart(points, tried, distance=1e-9))
        if not len(new):
            return []
        early = self.first_rung / self.max_epochs
        gains, mean, sd = self._surrogate.gain_of_run(points[new], self._best_row, fidelity=early, beyond=WORTHWHILE)
        hopes = self._surrogate.chance_above(mean, sd, self.in_sight + self.matters)
        options, lengths = [], np.minimum(self._lengths(points[new]), self.first_rung)
        for index, length, *figures in zip(new, lengths, gains, hopes, strict=True):
            params, epochs = configurations[index], float(length)
            options.append(Candidate(None, params, self._cost(params[BATCH_SIZE]) * epochs, *map(float, figures)))
        return options

    def farthest(self, options: Sequence[Candidate], others: Sequence[Trial]) -> Candidate:
        """The option that lies farthest from all of these trials, in the cube."""
        points = self._cube.encode(option.params for option in options)
        apart_from = self._cube.encode(trial.params for trial in others)
        return options[int(((points[:, None] - apart_from) ** 2).sum(-1).min(axis=1).argmax())]

    def expected_best(self, options: Sequence[Candidate]) -> Candidate:
        """The option whose configuration is expected to end best."""
        return options[int(self._worth(self._cube.encode(option.params for option in options)).argmax())]

    def expected(self, trials: Sequence[Trial]) -> FloatArray:
        """What the configurations of trials are worth, larger is better; shape (trials,)."""
        return self._worth(self._cube.encode(trial.params for trial in trials))

    def observed_best(self) -> Trial:
        """The complete trial with the best value."""
        return max(self.complete, key=lambda trial: self._sign * trial.curve[self.max_epochs][0])

    def _worth(self, points: FloatArray) -> FloatArray:
        """What configurations are worth, the median of the posterior; larger is better; shape (points,)."""
        return np.asarray(self._surrogate.quantiles(*self._surrogate.at_end(points), [0.5])[0])

    def _candidates(
        self, rng: np.random.Generator, max_batch_size: int | None
    ) -> tuple[list[dict[str, Any]], FloatArray]:
        last = [
            self._sign * trial.curve[trial.epochs][0] if trial.curve and trial.state != "infeasible" else -np.inf
            for trial in self.trials
        ]
        # Of the best observed those that are expected to end best: around a lucky run there is nothing to find.
        best = self._curves.x[np.argsort(-np.array(last), kind="stable")[:AMONG]]
        best = best[np.argsort(-self._worth(best), kind="stable")[:NEAREST]]
        points = candidates(self._cube, best, rng)
        if len(self.trials) < INTERIOR_TRIALS:
            columns, distance = self._cube.numeric_columns, INTERIOR
            if self._fitted:
                columns, distance = [c for c in columns if c != self._cube.column(BATCH_SIZE)], FROM_RATES
            points[:, columns] = distance + (1.0 - 2.0 * distance) * points[:, columns]
        configurations = [self._space.snapped(params) for params in self._cube.decode(points)]
        if max_batch_size is not None:
            configurations = [c for c in configurations if c[BATCH_SIZE] <= max_batch_size]
        return configurations, self._cube.encode(configurations)

    def least_promising(self, count: int) -> list[Trial]:
        """So many of the paused trials, those with the least hope to end above the best complete one."""
        ranked = sorted(self.paused, key=lambda option: (option.hope, option.gain))
        return [option.trial for option in ranked[:count] if option.trial is not None]


def choices_of(
    standing: Standing,
    share: float,
    space: SearchSpace,
    cube: Cube,
    *,
    rungs: Sequence[int],
    sign: float,
    before: Choices | None,
) -> Choices | None:
    """What can be done next as trials stand, time counting so much; None before the first value."""
    trials = standing.weighed(share, space)
    curves = standing.curves(trials, cube, sign=sign)
    if curves is None:
        return None
    fitted, cost = standing.gains_value and not share, standing.cost
    return Choices(trials, curves, space, cube, rungs=rungs, sign=sign, cost=cost, fitted=fitted, before=before)
