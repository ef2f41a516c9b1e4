"""What runs that confirm say of a recommendation, on the test set: means with intervals, differences to the default.

Runs of one number begin with the same weights and see the samples in the same order, so differences are taken run by
run, and their interval is that of paired values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchopt.question.metric import Target
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.intervals import Mean, _pooled, mean_of
from batchopt.store.confirmations import ROLES, ConfirmationRun, Role, plan_of


@dataclass(frozen=True)
class ConfirmedConfiguration:
    """What the runs of one configuration came to.

    Attributes:
        role: what it is to the recommendation.
        batch_size, learning_rate, extra: the configuration.
        diverged: how many runs did; they are in none of the means.
        missed: how many did not reach the target in all epochs, where there is one; nor are they.
        test_value, validation_value: of the metric, after the last epoch; None where no run is left.
        train_seconds: of a whole run, on the training clock; until the target where there is one.
        value_difference: test value less that of the reference, run by run; None for the reference itself.
        seconds_difference: of training, the same.
    """

    role: Role
    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    diverged: int
    missed: int
    test_value: Mean | None
    validation_value: Mean | None
    train_seconds: Mean | None
    value_difference: Mean | None
    seconds_difference: Mean | None


@dataclass(frozen=True)
class Confirmation:
    """What is known of a recommendation from runs of its own.

    Attributes:
        current: whether it is what the report recommends.
        target: that runs were trained to; None where they were trained for all epochs.
        recommendations: how many have been confirmed so far; the test set was opened for each.
        trials: how many trials the study had when this one was.
        configurations: the recommended one first.
        reference: the batch size that the others are compared with, 32 or the nearest there is.
        test_spread, validation_spread: standard deviation from seed to seed, all configurations together; None with one
            run of each.
        runs: how many runs tell so.
        machines: how many machines trained them; with more than one, seconds compare machines too.
    """

    current: bool
    target: float | None
    recommendations: int
    trials: int
    configurations: list[ConfirmedConfiguration]
    reference: int
    test_spread: float | None
    validation_spread: float | None
    runs: int
    machines: int


def confirmation(
    runs: Sequence[ConfirmationRun], recommended: Mapping[str, Any] | None, target: Target | None = None
) -> Confirmation | None:
    """What the runs of a study say of what is recommended now; where it was not confirmed, of the last that was.

    Args:
        runs: all that confirm, in the order in which recommendations were confirmed.
        recommended: the configuration that is recommended now, by dimension.
        target: at which the study's trials end, and these runs; None where there is none.

    Returns:
        None before the first run.
    """
    if not runs:
        return None
    plans = list(dict.fromkeys(run.plan for run in runs))
    now = None if recommended is None else plan_of(recommended)
    plan = now if now in plans else plans[-1]
    mine = [run for run in runs if run.plan == plan]
    by_role = {role: [run for run in mine if run.role == role] for role in ROLES}
    by_role = {role: same for role, same in by_role.items() if same}
    reference = min(by_role, key=lambda role: (from_common(by_role[role][0].batch_size), -ROLES.index(role)))
    rows = [
        _configuration(role, same, None if role == reference else by_role[reference], target)
        for role, same in by_role.items()
    ]
    whole = [_whole(same, target) for same in by_role.values()]
    test = [[run.test_value for run in same if run.test_value is not None] for same in whole]
    validation = [[run.validation_value for run in same if run.validation_value is not None] for same in whole]
    return Confirmation(
        current=plan == now,
        target=None if target is None else target.value,
        recommendations=len(plans),
        trials=max(run.trials for run in mine),
        configurations=rows,
        reference=by_role[reference][0].batch_size,
        test_spread=_pooled(test),
        validation_spread=_pooled(validation),
        runs=sum(map(len, test)),
        machines=len({run.machine for run in mine}),
    )


def from_common(batch_size: int) -> float:
    """How far a batch size is from the common default, in logarithms."""
    return abs(math.log(batch_size / COMMON_BATCH_SIZE))


def _configuration(
    role: Role, runs: Sequence[ConfirmationRun], reference: Sequence[ConfirmationRun] | None, target: Target | None
) -> ConfirmedConfiguration:
    first, done = runs[0], _whole(runs, target)
    against = {} if reference is None else {run.run: run for run in _whole(reference, target)}
    diverged = sum(run.test_value is None for run in runs)
    pairs = [(run, against[run.run]) for run in done if run.run in against]
    return ConfirmedConfiguration(
        role=role,
        batch_size=first.batch_size,
        learning_rate=first.learning_rate,
        extra=first.extra,
        diverged=diverged,
        missed=len(runs) - len(done) - diverged,
        test_value=mean_of(run.test_value or 0.0 for run in done),
        validation_value=mean_of(run.validation_value or 0.0 for run in done),
        train_seconds=mean_of(run.train_seconds for run in done),
        value_difference=mean_of((run.test_value or 0.0) - (other.test_value or 0.0) for run, other in pairs),
        seconds_difference=mean_of(run.train_seconds - other.train_seconds for run, other in pairs),
    )


def _whole(runs: Iterable[ConfirmationRun], target: Target | None) -> list[ConfirmationRun]:
    """Those that did not diverge, and reached the target where there is one."""
    done = [run for run in runs if run.test_value is not None]
    values = [(run, run.validation_value) for run in done]
    return [run for run, value in values if target is None or (value is not None and target.met(value))]
