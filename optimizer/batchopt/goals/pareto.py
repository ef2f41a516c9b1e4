"""The goal `pareto`: the validation metric against training time, searched as one value whose weights change.

What a trial will take is known before it begins, so both objectives are one: value - weight * log(seconds). Each
weight has its best configuration, and together these are the front, as far as it bulges outwards.

Source: Knowles 2006, ParEGO, IEEE Transactions on Evolutionary Computation 10(1), whose weights are drawn anew for each
trial; here the value is a plain weighted sum, and the weights are spread evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from batchopt.goals.kind import Kind, Outcome
from batchopt.machine.energy import Power
from batchopt.question.metric import Direction
from batchopt.question.space import SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.run_lengths import RunLengths
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.sequence import van_der_corput
from batchopt.search.view import Standing, View
from batchopt.words import counted

BEST_SHARE = 0.25
"""The part of the trials that are chosen for the metric alone, as that end of the front is what is asked for most."""

ALL_SHARES = (0.0, 0.5, 1.0)
"""A search is over when it is for each of these."""


class Pareto(Kind):
    """The validation metric against the training time of all epochs."""

    cost_unit = "s"
    prunes = False

    @property
    def directions(self) -> tuple[Direction, ...]:
        return (self.metric.direction, "minimize")

    @property
    def value_names(self) -> tuple[str, ...]:
        return (self.metric.key, "train_seconds")

    def words(self) -> str:
        name, epochs = self.metric.title, counted(self.goal.epochs, "epoch")
        within = f"best {name} within {epochs}, against their time"
        return within if self.goal.value == "best" else f"{name} against time after {epochs}"

    def view(self, seconds_per_epoch: Callable[[int], float] | None, power: Power) -> View:
        return TradeOff(seconds_per_epoch, sign=self.metric.sign)

    def outcome(self, curve: Mapping[int, float], cost_per_epoch: float) -> Outcome:
        # One that has ended by itself has taken no more than its own epochs.
        return Outcome((self.goal.counted(curve, self.metric), max(curve) * cost_per_epoch))


class TradeOff(View):
    """Values less what time costs, in another proportion from trial to trial.

    Args:
        seconds_per_epoch: batch size -> seconds, on the machine whose seconds count; None where it is this one.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """

    values = False

    def __init__(self, seconds_per_epoch: Callable[[int], float] | None = None, *, sign: float = 1.0) -> None:
        self._seconds_per_epoch = seconds_per_epoch
        self._sign = sign

    def shares(self, started: int) -> Sequence[float]:
        return [time_share(started), *ALL_SHARES]

    def standing(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> Standing:
        return _Weighed(trials, cost, self._seconds_per_epoch or cost, max_epochs=max_epochs, sign=self._sign)


class _Weighed(Standing):
    def __init__(
        self,
        trials: Sequence[Trial],
        cost: EpochCost,
        seconds_per_epoch: Callable[[int], float],
        *,
        max_epochs: int,
        sign: float,
    ) -> None:
        super().__init__(trials, cost, max_epochs=max_epochs)
        self._seconds_per_epoch = seconds_per_epoch
        self._sign = sign

    def weighed(self, share: float, space: SearchSpace) -> list[Trial]:
        if share <= 0:
            return list(self.trials)
        return weighed(self.trials, space, self._seconds_per_epoch, share, max_epochs=self.max_epochs, sign=self._sign)


def time_share(number: int) -> float:
    """How much time counts for the n-th trial, in 0 to 1: the van der Corput sequence, its lowest part at 0."""
    return max(0.0, (van_der_corput(number) - BEST_SHARE) / (1.0 - BEST_SHARE))


def weighed(
    trials: Sequence[Trial],
    space: SearchSpace,
    seconds_per_epoch: Callable[[int], float],
    share: float,
    *,
    max_epochs: int,
    sign: float = 1.0,
) -> list[Trial]:
    """The trials, their values less what a run of them costs.

    Args:
        trials: with curves of the metric.
        space: of the study.
        seconds_per_epoch: batch size -> seconds.
        share: 0 where the metric alone counts; at 1 the fastest batch size is worth to the slowest what values differ
            by from batch size to batch size.
        max_epochs: of a whole trial.
        sign: 1 where larger values are better, -1 where smaller ones are.

    Returns:
        Copies, in the same order.
    """
    best: dict[int, float] = {}
    for trial in trials:
        if trial.curve and trial.state != "infeasible":
            score = sign * trial.curve[trial.epochs][0]
            best[trial.batch_size] = max(best.get(trial.batch_size, -math.inf), score)
    cost = [math.log(seconds_per_epoch(int(size))) for size in space.grid_batch_sizes()]
    if not best or max(cost) == min(cost):
        return list(trials)
    # Twice the way to the middle: one batch size that failed would stretch the range.
    scores = list(best.values())
    weight = share * 2.0 * (max(scores) - float(np.median(scores))) / (max(cost) - min(cost))

    cube = Cube(space.distributions())
    epochs = RunLengths(trials, cube, max_epochs=max_epochs)(cube.encode(trial.params for trial in trials))

    def less_time(trial: Trial, share: float) -> Trial:
        taken = sign * weight * (math.log(seconds_per_epoch(trial.batch_size) * share) - min(cost))
        return replace(trial, curve={epoch: (value - taken, spent) for epoch, (value, spent) in trial.curve.items()})

    return [less_time(*each) for each in zip(trials, (epochs / max_epochs).tolist(), strict=True)]
