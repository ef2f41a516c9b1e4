"""What a step is worth: the gain that it promises over the seconds that it still needs.

Two kinds of steps compete. A new configuration is worth what a run of it may add to the best that is in sight, by what
it teaches of both: the best complete trial, or a paused one that is expected to end above it. A paused trial is worth
what it may add to the same; the favourite among them, what it may add to the best complete trial. While some new
configuration has a fair chance to end clearly above the favourite, the favourite waits: a quarter of a trial may save
three quarters.

Three guards against a surrogate that is surer than it should be: one trial in a few is finished whatever it says, one
of these is the oddest instead of the best, and one new configuration in a few goes where nothing was tried. When
nothing better is in sight, the last steps go where the best is expected, until it is told from the lucky.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optimizer.search.candidates import apart, candidates
from optimizer.search.costs import EpochCost
from optimizer.search.cube import Cube
from optimizer.search.curves import Curves
from optimizer.search.space import BATCH_SIZE, SearchSpace
from optimizer.search.surrogate import Surrogate
from optimizer.search.trials import Trial

FloatArray = npt.NDArray[np.float64]

COST_POWER = 0.4
"""Gain is divided by seconds to this power: at 1 the search creeps along the cheap side of the space."""

WORTHWHILE = 0.005
"""Gains are counted from this part of the spread of values: which of two neighbours is better is worth no whole run."""

EXPLORE_EVERY = 8
"""Every so many new configurations goes where nothing was tried, whatever the surrogate believes."""

EXPLOIT_EVERY, EXPLOIT_FROM = 4, 8
"""Every so many new configurations, from so many trials on, is the one that is expected to end best. Where values are
noisy the expected improvement of a neighbour of the best is small, and still it is what settles the best."""

INTERIOR_TRIALS, INTERIOR = 4, 0.12
"""The first new configurations keep this distance from the faces: with one observation every corner looks unknown."""

FAIR_CHANCE, CLEARLY = 0.4, 0.01
"""The favourite waits while a new configuration ends above it by this part of the range with this probability."""

FINISH_ONE_IN, ODD_ONE_IN = 4, 4
"""One trial in so many is finished all the same, and one of so many of these is the one farthest from all that were
finished before: a late bloomer shows itself only at its end, and how curves end is learned from ends."""

STOP_AFTER_TRIALS, STOP_AFTER_COMPLETE, WITHOUT_GAIN = 30, 8, 15
"""A study does not end by itself before so many trials were started, so many trained to the end, and so many started
after the best one."""

NO_CHANCE, MATTERS = 0.01, 0.002
"""It ends when no step is likelier than this to end above the best by this part of the spread of the values. With no
trial left to start, a paused one is finished unless as much is to be said of it."""

SETTLED, SETTLED_AT_MOST = 5, 20
"""Nor before so many complete trials are expected within `CLEARLY` of the best; the second, where the best observed is
not the one that is expected best: with noise a lucky run may lead, and only runs beside the best one tell."""

NEAREST, AMONG = 5, 20
"""How many of the best trials are looked around, and among how many they are chosen."""

ENOUGH = 8
"""Candidates next to trials that were made are left out, unless fewer than this are left."""


@dataclass(frozen=True)
class Option:
    """A step that could be taken.

    Attributes:
        trial: the paused trial; None for a new configuration.
        params: the configuration by dimension.
        seconds: expected until the trial's end, the chance of an earlier end counted.
        gain: expected, in the units of the values.
        chance: probability to end clearly above the best in sight.
        hope: probability to end above it by anything that matters.
    """

    trial: Trial | None
    params: Mapping[str, Any]
    seconds: float
    gain: float
    chance: float
    hope: float

    @property
    def worth(self) -> float:
        """What the options are compared by."""
        return float(self.gain / self.seconds**COST_POWER)


class Outlook:
    """All that can be done next, as the evidence stands.

    Attributes:
        complete: the trials that were trained to the end.
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
        rotation: how the rate turns with the batch size, for the surrogate.
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
        rotation: tuple[int, int, float] | None,
    ) -> None:
        self._trials = trials
        self._curves = curves
        self._space = space
        self._cube = cube
        self._first_rung, self._max_epochs = rungs[0], rungs[-1]
        self._sign = sign
        self._cost = cost
        self._surrogate = Surrogate(curves, rotation=rotation)
        self.complete = [trial for trial in trials if trial.state == "complete"]
        self._clearly = CLEARLY * self._surrogate.spread
        self._best_row, self.incumbent = self._incumbent()
        self.in_sight = self.incumbent
        self._matters = MATTERS * self._surrogate.spread
        self.paused = self._continuing()

    def _incumbent(self) -> tuple[int, float]:
        """The best complete configuration's row and worth; before there is one, what the best reaches almost surely."""
        rows = [row for row, trial in enumerate(self._trials) if trial.state == "complete"]
        if rows:
            # The configuration and not its run: a lucky run must not end the search.
            values = self._expected(self._curves.x[rows])
        else:
            rows = sorted({int(row) for row in self._curves.trial})
            values = self._surrogate.quantiles(*self._surrogate.of_trials(rows), [0.05])[0]
        return rows[int(values.argmax())], float(values.max())

    def _continuing(self) -> list[Option]:
        rows = [row for row, trial in enumerate(self._trials) if trial.state == "paused"]
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
        chances = self._surrogate.chance_above(mean, sd, self.incumbent + self._clearly)
        hopes = self._surrogate.chance_above(mean, sd, self.incumbent + self._matters)
        options = []
        for row, *figures in zip(rows, gains, chances, hopes, strict=True):
            trial = self._trials[row]
            seconds = self._cost(trial.batch_size) * (self._max_epochs - trial.epochs)
            options.append(Option(trial, trial.params, seconds, *map(float, figures)))
        return options

    def starting(self, rng: np.random.Generator, *, max_batch_size: int | None) -> list[Option]:
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
        early = self._first_rung / self._max_epochs
        gains, mean, sd = self._surrogate.gain_of_run(points[new], self._best_row, fidelity=early, beyond=WORTHWHILE)
        chances = self._surrogate.chance_above(mean, sd, self.in_sight + self._clearly)
        hopes = self._surrogate.chance_above(mean, sd, self.in_sight + self._matters)
        epochs = self._first_rung
        options = []
        for index, *figures in zip(new, gains, chances, hopes, strict=True):
            params = configurations[index]
            options.append(Option(None, params, self._cost(params[BATCH_SIZE]) * epochs, *map(float, figures)))
        return options

    def _farthest(self, options: Sequence[Option], others: FloatArray) -> Option:
        """The option that lies farthest from all of these points of the cube."""
        points = self._cube.encode(option.params for option in options)
        return options[int(((points[:, None] - others) ** 2).sum(-1).min(axis=1).argmax())]

    def _expected(self, points: FloatArray) -> FloatArray:
        """What configurations are worth, the median of the posterior; larger is better; shape (points,)."""
        return np.asarray(self._surrogate.quantiles(*self._surrogate.at_end(points), [0.5])[0])

    def _candidates(
        self, rng: np.random.Generator, max_batch_size: int | None
    ) -> tuple[list[dict[str, Any]], FloatArray]:
        last = [
            self._sign * trial.curve[trial.epochs][0] if trial.curve and trial.state != "infeasible" else -np.inf
            for trial in self._trials
        ]
        # Of the best observed those that are expected to end best: around a lucky run there is nothing to find.
        best = self._curves.x[np.argsort(-np.array(last), kind="stable")[:AMONG]]
        best = best[np.argsort(-self._expected(best), kind="stable")[:NEAREST]]
        points = candidates(self._cube, best, rng)
        if len(self._trials) < INTERIOR_TRIALS:
            columns = self._cube.numeric_columns
            points[:, columns] = INTERIOR + (1.0 - 2.0 * INTERIOR) * points[:, columns]
        configurations = [self._space.snapped(params) for params in self._cube.decode(points)]
        if max_batch_size is not None:
            configurations = [c for c in configurations if c[BATCH_SIZE] <= max_batch_size]
        return configurations, self._cube.encode(configurations)

    def _expected_best(self, steps: Sequence[Option]) -> Option:
        return steps[int(self._expected(self._cube.encode(step.params for step in steps)).argmax())]

    def _little_hope(self, new: Sequence[Option]) -> bool:
        """Whether nothing better is in sight any more."""
        return len(self._trials) >= STOP_AFTER_TRIALS and max(s.hope for s in (*self.paused, *new)) <= NO_CHANCE

    def _settled(self) -> bool:
        """Whether enough runs beside the best one have told that it is."""
        worth = self._expected(self._cube.encode(trial.params for trial in self.complete))
        beside = int((worth > worth.max() - self._clearly).sum())
        lucky = self._observed_best() is not self.complete[int(worth.argmax())]
        return beside >= (SETTLED_AT_MOST if lucky else SETTLED)

    def _observed_best(self) -> Trial:
        return max(self.complete, key=lambda trial: self._sign * trial.curve[self._max_epochs][0])

    def pick(self, new: Sequence[Option]) -> Option | None:
        """The step to take, given the new configurations; None where there is nothing left to do."""
        options = list(self.paused)
        if self.complete and (options or new) and self._little_hope(new):
            # What remains is to tell the best from the lucky.
            return self._expected_best([*options, *new])
        finishing = any(t.state == "running" and t.until_epoch == self._max_epochs for t in self._trials)
        if options and not self.complete and not finishing:
            return max(options, key=lambda option: option.worth)
        ending = sum(t.state == "running" and t.until_epoch > self._first_rung for t in self._trials)
        if options and len(self._trials) >= FINISH_ONE_IN * (len(self.complete) + ending + 1):
            if len(self.complete) % ODD_ONE_IN == ODD_ONE_IN - 1:
                return self._farthest(options, self._cube.encode(trial.params for trial in self.complete))
            return max(options, key=lambda option: option.worth)
        if new and max(option.chance for option in new) > FAIR_CHANCE:
            options = []
        best = max([*options, *new], key=lambda option: option.worth, default=None)
        if best is None or best.trial is not None:
            return best
        if len(self._trials) % EXPLORE_EVERY == EXPLORE_EVERY - 1:
            return self._farthest(new, self._curves.x)
        if len(self._trials) >= EXPLOIT_FROM and len(self._trials) % EXPLOIT_EVERY == EXPLOIT_EVERY // 2:
            return self._expected_best(new)
        return best

    def enough(
        self,
        option: Option | None,
        new: Sequence[Option],
        *,
        may_start: bool,
        until: bool,
        shown: Callable[[float], str] = "the best value by more than {:.2g}".format,
    ) -> str:
        """Why the study ends here, in one line; empty where it goes on.

        Args:
            option: the step picked.
            new: the new configurations that it was picked from.
            may_start: whether there is a trial left to start.
            until: whether the study ends by itself.
            shown: what is improved, given by how much it would matter.
        """
        if not self.complete and self.paused:
            return ""
        promising = max((paused.hope for paused in self.paused), default=0.0)
        if not new and promising <= NO_CHANCE:
            return "every configuration of the space was tried" if may_start else "the trials of this study are used up"
        if not until or option is None or len(self.complete) < STOP_AFTER_COMPLETE:
            return ""
        since = sum(trial.trial > self._observed_best().trial for trial in self._trials)
        if since < WITHOUT_GAIN or not self._little_hope(new) or not self._settled():
            return ""
        return f"no step is likelier than {NO_CHANCE:.0%} to improve {shown(self._matters)}"

    def least_promising(self, count: int) -> list[Trial]:
        """So many of the paused trials, those with the least chance to end above the best complete one."""
        ranked = sorted(self.paused, key=lambda option: (option.chance, option.gain))
        return [option.trial for option in ranked[:count] if option.trial is not None]
