"""How soon a value of the validation metric was reached, by batch size, and the law that the steps to it follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchopt.machine.step_time import StepTimeFit
from batchopt.question.metric import Metric, Target
from batchopt.report.answer.notes import never_varies
from batchopt.search.laws import StepsLaw, fastest_batch_size, fitted_steps_law
from batchopt.store.attributes import DIVERGED
from batchopt.store.history import TrialRecord


@dataclass(frozen=True)
class Reached:
    """The soonest that a batch size reached the target.

    Attributes:
        batch_size, learning_rate: of the trial that did.
        trial: its number.
        epochs: until then, interpolated between evaluations.
        steps: optimizer steps until then.
        seconds: training seconds until then.
        within_first: whether that was within the first epoch. Before it nothing was evaluated, so that no more is known
            than that it took at most the epoch, its steps and its seconds.
    """

    batch_size: int
    learning_rate: float
    trial: int
    epochs: float
    steps: float
    seconds: float
    within_first: bool = False


@dataclass(frozen=True)
class ToTarget:
    """What a study says of a target.

    Attributes:
        target: of the validation metric.
        reached: a row for each batch size that got there, ascending.
        nearest: the best value that any trial reached at any epoch; None before the first.
        law: what the steps follow, from those that are known to more than an epoch; None with fewer than three.
    """

    target: float
    reached: list[Reached]
    nearest: float | None
    law: StepsLaw | None


def to_target(trials: Sequence[TrialRecord], metric: Metric, value: float | None = None) -> ToTarget | None:
    """How soon each batch size reached a target.

    Args:
        trials: of one study; those that diverged in the end count for nothing.
        metric: what the study watches.
        value: of the metric, that is the target; None for one that half of the batch sizes reached.

    Returns:
        None before the first epoch; and where no target is given and the metric never varies.
    """
    trials = [trial for trial in trials if trial.note != DIVERGED]
    best = best_by_batch_size(trials, metric)
    if not best or (value is None and never_varies(trials) is not None):
        return None
    target = Target(metric, _middle(list(best.values()), metric) if value is None else value)
    soonest: dict[int, Reached] = {}
    for trial in trials:
        reached = _reached(trial, target)
        if reached is not None:
            known = soonest.get(reached.batch_size)
            soonest[reached.batch_size] = reached if known is None or reached.steps < known.steps else known
    rows = [soonest[size] for size in sorted(soonest)]
    certain = [row for row in rows if not row.within_first]
    law = fitted_steps_law([row.batch_size for row in certain], [row.steps for row in certain])
    return ToTarget(target.value, rows, metric.best(best.values()), law)


def best_by_batch_size(trials: Sequence[TrialRecord], metric: Metric) -> dict[int, float]:
    """The best value of any epoch, by batch size."""
    best: dict[int, float] = {}
    for trial in trials:
        for epoch in trial.epochs:
            value = epoch["value"]
            if trial.batch_size is not None and value is not None:
                best[trial.batch_size] = metric.best([best.get(trial.batch_size, value), value])
    return best


def _middle(values: Sequence[float], metric: Metric) -> float:
    """A round value that half of these are at, or better: to 0.1 points, or to three digits."""
    middle = metric.sign * float(np.median([metric.score(value) for value in values]))
    if middle == 0:
        return middle
    digit = 1e-3 if metric.is_accuracy else 10.0 ** (math.floor(math.log10(abs(middle))) - 2)
    # On the worse side, where half of them are.
    rounded = metric.sign * math.floor(metric.sign * middle / digit) * digit
    return max(rounded, digit) if metric.is_accuracy else float(f"{rounded:.6g}")


def _reached(trial: TrialRecord, target: Target) -> Reached | None:
    """Where a trial's curve first crosses the target, linear between two evaluations; in the first epoch, its end."""
    if trial.batch_size is None or trial.learning_rate is None:
        return None
    before, seconds = 0.0, 0.0
    for done, epoch in enumerate(trial.epochs):
        value = epoch["value"]
        if value is None:
            return None
        if target.met(value):
            # Before the first evaluation the curve is unknown, and changes by most.
            part = (target.value - before) / (value - before) if done else 1.0
            return Reached(
                trial.batch_size,
                trial.learning_rate,
                trial.number,
                epochs=done + part,
                steps=(done + part) * epoch["steps"],
                seconds=seconds + part * epoch["train_seconds"],
                within_first=done == 0,
            )
        before, seconds = value, seconds + epoch["train_seconds"]
    return None


def fastest_by_laws(steps: StepsLaw | None, step_time: StepTimeFit | None) -> float | None:
    """The batch size of least time to the target, where steps to it times seconds per step are least, in examples.

    Returns:
        None where one of the laws is missing or not followed, or where larger is always faster.
    """
    if steps is None or step_time is None or not (steps.followed and step_time.followed):
        return None
    least = fastest_batch_size(
        critical_batch_size=steps.critical_batch_size,
        overhead_s=step_time.overhead_s,
        per_example_s=step_time.per_example_s,
    )
    return least if math.isfinite(least) and least > 0 else None
