"""What is answered where the goal is not accuracy alone: the time to a target, the front of accuracy against time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchopt.question.goal import Goal
from batchopt.question.space import SearchSpace
from batchopt.report.answer.batch_sizes import epoch_seconds
from batchopt.store.history import TrialRecord, as_trial

if TYPE_CHECKING:
    from batchopt.search.advice import Advice, Estimate


@dataclass(frozen=True)
class Nearest:
    """The trial that came nearest to a target that nobody reached.

    Attributes:
        accuracy: its best validation accuracy, in 0 to 1.
        batch_size, learning_rate: its configuration.
        trial: its number.
        epochs: that it was trained.
        rising: whether no epoch before its last was as accurate, so that more of them may do.
    """

    accuracy: float
    batch_size: int
    learning_rate: float
    trial: int
    epochs: int
    rising: bool


@dataclass(frozen=True)
class TimeAnswer:
    """What a study says of the least time to a target.

    Attributes:
        target: validation accuracy, in 0 to 1.
        advice: its values are seconds to the target; None where no trial reached it.
        reached: batch sizes of which some trial reached it, ascending.
        nearest: None where some trial reached it, or before the first epoch.
    """

    target: float
    advice: Advice | None
    reached: list[int]
    nearest: Nearest | None


def time_answer(
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    goal: Goal,
    *,
    max_batch_size: int | None = None,
    seconds_per_epoch: Callable[[int], float] | None = None,
) -> TimeAnswer:
    """How soon the goal's target is reached, by the posterior of all curves, those that were not trained for it too.

    Args:
        trials: as the machine that is advised has them.
        space: of the study.
        goal: with a target.
        max_batch_size: what that machine holds, in examples; None for no limit.
        seconds_per_epoch: batch size -> seconds, where that machine was measured; else learned from the trials.
    """
    # The numerics take a second to load.
    from batchopt.goals.target_progress import TargetProgress, advise_time

    assert goal.target is not None
    whole = [trial for trial in trials if trial.batch_size and trial.learning_rate]
    known = [as_trial(trial, held=False, max_epochs=goal.epochs) for trial in whole]
    progress = TargetProgress.of(known, goal.target, seconds_per_epoch or epoch_seconds(trials))
    advice = advise_time(progress, space, max_epochs=goal.epochs, max_batch_size=max_batch_size)
    reached = sorted({trial.batch_size for trial in known if trial.trial in progress.times})
    return TimeAnswer(goal.target, advice, reached, None if reached else _nearest(whole))


def _nearest(trials: Sequence[TrialRecord]) -> Nearest | None:
    found = []
    for trial in trials:
        curve = [epoch["validation_accuracy"] for epoch in trial.epochs]
        if curve and None not in curve:
            assert trial.batch_size is not None and trial.learning_rate is not None
            rising = curve[-1] > max(curve[:-1], default=-math.inf)
            found.append(Nearest(max(curve), trial.batch_size, trial.learning_rate, trial.number, len(curve), rising))
    return max(found, key=lambda nearest: nearest.accuracy, default=None)


def front(advice: Advice | None) -> list[Estimate]:
    """Of the batch sizes that were trained, those than which no other is both faster and as accurate, fastest first."""
    rows = [] if advice is None else [row for row in advice.by_batch_size if row.runs]
    kept: list[Estimate] = []
    for row in sorted(rows, key=lambda row: (row.seconds, -row.mean)):
        if not kept or row.mean > kept[-1].mean:
            kept.append(row)
    return kept
