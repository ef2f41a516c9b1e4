"""The goal `pareto`: the validation metric against training time, searched as one value whose weights change.

What a trial will take is known before it begins, so both objectives are one: accuracy - weight * log(seconds). Each
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
from batchopt.question.space import SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.steps import Trial
from batchopt.search.surrogate.sequence import van_der_corput
from batchopt.search.view import Standing, View
from batchopt.words import counted

ACCURATE_SHARE = 0.25
"""The part of the trials that are chosen for accuracy alone, as that end of the front is what is asked for most."""

ALL_SHARES = (0.0, 0.5, 1.0)
"""A search is over when it is for each of these."""


class Pareto(Kind):
    """The highest validation metric against the training time of all epochs."""

    directions = ("maximize", "minimize")
    value_names = ("validation_accuracy", "train_seconds")
    in_seconds = True
    prunes = False

    def words(self) -> str:
        epochs = counted(self.goal.epochs, "epoch")
        within = f"best accuracy within {epochs}, against their time"
        return within if self.goal.value == "best" else f"accuracy against time after {epochs}"

    def view(self, seconds_per_epoch: Callable[[int], float] | None) -> View:
        return TradeOff(seconds_per_epoch)

    def outcome(self, curve: Mapping[int, float], seconds_per_epoch: float) -> Outcome:
        # One that has ended by itself has taken no more than its own epochs.
        return Outcome((self.goal.counted(curve), max(curve) * seconds_per_epoch))


class TradeOff(View):
    """Values less what time costs, in another proportion from trial to trial.

    Args:
        seconds_per_epoch: batch size -> seconds, on the machine whose seconds count; None where it is this one.
    """

    values = False

    def __init__(self, seconds_per_epoch: Callable[[int], float] | None = None) -> None:
        self._seconds_per_epoch = seconds_per_epoch

    def shares(self, started: int) -> Sequence[float]:
        return [time_share(started), *ALL_SHARES]

    def standing(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> Standing:
        return _Weighed(trials, cost, self._seconds_per_epoch or cost, max_epochs=max_epochs)


class _Weighed(Standing):
    def __init__(
        self, trials: Sequence[Trial], cost: EpochCost, seconds_per_epoch: Callable[[int], float], *, max_epochs: int
    ) -> None:
        super().__init__(trials, cost, max_epochs=max_epochs)
        self._seconds_per_epoch = seconds_per_epoch

    def weighed(self, share: float, space: SearchSpace) -> list[Trial]:
        return weighed(self.trials, space, self._seconds_per_epoch, share) if share > 0 else list(self.trials)


def time_share(number: int) -> float:
    """How much time counts for the n-th trial, in 0 to 1: the van der Corput sequence, its lowest part at 0."""
    return max(0.0, (van_der_corput(number) - ACCURATE_SHARE) / (1.0 - ACCURATE_SHARE))


def weighed(
    trials: Sequence[Trial], space: SearchSpace, seconds_per_epoch: Callable[[int], float], share: float
) -> list[Trial]:
    """The trials, their values less what their batch size costs.

    Args:
        trials: with curves of accuracy.
        space: of the study.
        seconds_per_epoch: batch size -> seconds.
        share: 0 where accuracy alone counts; at 1 the fastest batch size is worth to the slowest what accuracies differ
            by from batch size to batch size.

    Returns:
        Copies, in the same order.
    """
    best: dict[int, float] = {}
    for trial in trials:
        if trial.curve and trial.state != "infeasible":
            accuracy = trial.curve[trial.epochs][0]
            best[trial.batch_size] = max(best.get(trial.batch_size, -math.inf), accuracy)
    cost = [math.log(seconds_per_epoch(int(size))) for size in space.grid_batch_sizes()]
    if not best or max(cost) == min(cost):
        return list(trials)
    # Twice the way to the middle: one batch size that failed would stretch the range.
    accuracies = list(best.values())
    weight = share * 2.0 * (max(accuracies) - float(np.median(accuracies))) / (max(cost) - min(cost))

    def less_time(trial: Trial) -> Trial:
        taken = weight * (math.log(seconds_per_epoch(trial.batch_size)) - min(cost))
        return replace(trial, curve={epoch: (value - taken, spent) for epoch, (value, spent) in trial.curve.items()})

    return [less_time(trial) for trial in trials]
