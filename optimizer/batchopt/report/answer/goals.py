"""What is answered where the goal is not the metric alone: what a target costs, the front of metric against time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchopt.goals.kind import of_time
from batchopt.goals.kinds import kind_of
from batchopt.goals.to_target import ToTargetKind
from batchopt.machine.energy import Price
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric
from batchopt.question.space import SearchSpace
from batchopt.report.answer.batch_sizes import epoch_seconds
from batchopt.report.answer.places import Place
from batchopt.store.history import TrialRecord, as_trial
from batchopt.text import printable

if TYPE_CHECKING:
    from batchopt.search.advice import Advice, Estimate


@dataclass(frozen=True)
class Nearest:
    """The trial that came nearest to a target that nobody reached.

    Attributes:
        value: its best validation metric.
        batch_size, learning_rate: its configuration.
        trial: its number.
        epochs: that it was trained.
        rising: whether no epoch before its last was as good, so that more of them may do.
    """

    value: float
    batch_size: int
    learning_rate: float
    trial: int
    epochs: int
    rising: bool


@dataclass(frozen=True)
class TargetAnswer:
    """Who reached a target.

    Attributes:
        target: of the validation metric.
        reached: batch sizes of which some trial reached it, ascending.
        nearest: None where some trial reached it, or before the first epoch.
    """

    target: float
    reached: list[int]
    nearest: Nearest | None


def target_answer(
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    goal: Goal,
    metric: Metric,
    *,
    max_batch_size: int | None = None,
    seconds_per_epoch: Callable[[int], float] | None = None,
    price: Price | None = of_time,
) -> tuple[TargetAnswer, Advice | None]:
    """What it costs to get to the goal's target, by the posterior of all curves, whatever they were trained for.

    Args:
        trials: as the machine that is advised has them.
        space: of the study.
        goal: with a target.
        metric: what the study watches.
        max_batch_size: what that machine holds, in examples; None for no limit.
        seconds_per_epoch: batch size -> seconds, where that machine was measured; else learned from the trials.
        price: batch size -> what a second costs there, in the goal's unit; None where nobody knows.

    Returns:
        Who reached it, and what the posterior says of the cost until then; that is None where nobody did, and without a
        price.
    """
    # The numerics take a second to load.
    from batchopt.goals.target_progress import TargetProgress, advise_to_target

    target = metric.target(goal.target)
    assert target is not None
    whole = [trial for trial in trials if trial.batch_size and trial.learning_rate]
    known = [as_trial(trial, held=False, max_epochs=goal.epochs) for trial in whole]
    progress = TargetProgress.of(known, target, seconds_per_epoch or epoch_seconds(trials), price or of_time)
    advice = None
    if price is not None:
        advice = advise_to_target(progress, space, max_epochs=goal.epochs, max_batch_size=max_batch_size)
    reached = sorted({trial.batch_size for trial in known if trial.trial in progress.costs})
    return TargetAnswer(target.value, reached, None if reached else _nearest(whole, metric)), advice


def targeted(goal: Goal, metric: Metric) -> ToTargetKind | None:
    """The goal as one to a target; None where it is another."""
    kind = kind_of(goal, metric)
    return kind if isinstance(kind, ToTargetKind) else None


def lacking(goal: Goal, metric: Metric, place: Place, described: Mapping[str, Any]) -> str:
    """Why a machine does not tell what a goal counts, and what to do, in a line; empty where it does.

    Args:
        goal, metric: what is asked for.
        place: the machine, with what was measured there.
        described: the same, as it describes itself.
    """
    why = "" if place.power.known else printable(described.get("no_energy", "")) or "none of its epochs has any"
    return kind_of(goal, metric).lacking(place.name or "this study", why, place.power.max_w)


def price_of(goal: Goal, metric: Metric, place: Place) -> Price | None:
    """Batch size -> what a second costs on a machine, in the goal's unit; None where nobody knows."""
    return None if lacking(goal, metric, place, {}) else kind_of(goal, metric).price(place.power)


def _nearest(trials: Sequence[TrialRecord], metric: Metric) -> Nearest | None:
    found = []
    for trial in trials:
        curve = [epoch["value"] for epoch in trial.epochs]
        if curve and None not in curve:
            assert trial.batch_size is not None and trial.learning_rate is not None
            scores = [metric.score(value) for value in curve]
            rising, best = scores[-1] > max(scores[:-1], default=-math.inf), metric.best(curve)
            found.append(Nearest(best, trial.batch_size, trial.learning_rate, trial.number, len(curve), rising))
    return max(found, key=lambda nearest: metric.score(nearest.value), default=None)


def front(advice: Advice | None, sign: float) -> list[Estimate]:
    """Of the batch sizes that were trained, or are recommended, those that no other beats in both, fastest first."""
    if advice is None:
        return []
    from batchopt.search import preference

    rows = [row for row in advice.by_batch_size if row.runs or row is advice.recommended]
    return sorted(preference.front(rows, sign), key=lambda row: row.seconds)
