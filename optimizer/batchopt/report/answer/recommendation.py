"""From trials to advice: which batch size, which learning rate, and what each batch size is worth.

What is expected of a configuration comes from the posterior (`search/advice.py`), what was seen of it from the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchopt.goals.kinds import kind_of
from batchopt.machine.step_time import StepTimeFit
from batchopt.question.goal import Counts, Goal, Prefer
from batchopt.question.metric import Metric, Target
from batchopt.question.space import BATCH_SIZE, COMMON_BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.report.answer.batch_sizes import BatchSizeRow, epoch_seconds
from batchopt.report.answer.confirmation import Confirmation
from batchopt.report.answer.noise import GradientNoise
from batchopt.report.answer.notes import never_varies
from batchopt.report.answer.targets import ToTarget
from batchopt.store.history import TrialRecord, as_trial

if TYPE_CHECKING:
    from batchopt.report.answer.goals import TargetAnswer
    from batchopt.search.advice import Advice, Estimate

Draws = Callable[[int, float], float | None]
"""Batch size and seconds of training -> joules; None where nobody knows."""

EARLY_EPOCHS = 0.5
"""Fewer epochs than this before the last one are none that anybody would notice."""


def unmetered(batch_size: int, seconds: float) -> float | None:
    """What is drawn where no energy was measured."""
    return None


@dataclass(frozen=True)
class Recommendation:
    """What we advise.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        extra: values of the extra dimensions.
        quantity: what is expected: the validation metric after the last epoch, or seconds or joules to the target.
        expected: by the posterior, in the units of that.
        low, high: its 90 % interval.
        chance_within: probability to lose no more than `tolerance` against the best batch size.
        tolerance: in the units of what is expected.
        seconds: that one more run of it is expected to take; until the target, where there is one.
        epochs: in which it is expected to: fewer than the goal's where training ends by itself, or at the target.
        value: the validation metric that its own trial reached; None where no trial of it was trained to its end.
        train_seconds: that its trial took, on the training clock; None as above.
        trial: the number of the trial; None as above.
        joules: that one more run is expected to draw; None where the machine's energy was not measured.
    """

    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    quantity: str
    expected: float
    low: float
    high: float
    chance_within: float
    tolerance: float
    seconds: float
    epochs: float
    value: float | None
    train_seconds: float | None
    trial: int | None
    joules: float | None = None

    @property
    def params(self) -> dict[str, Any]:
        """By the names of its dimensions."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}


@dataclass(frozen=True)
class MachineAdvice:
    """What is best on one of several machines of a study, from the trials of all of them.

    Attributes:
        fingerprint: the machine's.
        name: for people.
        batch_size, learning_rate: as recommended there; None before the first complete trial that fits there.
        seconds: that one more run of it is expected to take there; None where nothing was measured there.
        best: the batch size that is expected best there, whatever it takes; None as above.
        max_batch_size: the largest that fits there, in examples; None where all do.
    """

    fingerprint: str
    name: str
    batch_size: int | None
    learning_rate: float | None
    seconds: float | None
    best: int | None
    max_batch_size: int | None


@dataclass(frozen=True)
class Report:
    """All that is said of a study; `describe` is its JSON.

    Attributes:
        storage: its database, without the password.
        metric: what the study watches.
        machine: the machine that it is for, as it describes itself; empty before the first trial.
        elsewhere: none was asked for, and the one that asks is not in the study: `machine` is the study's first.
        trials: how many trials, by state.
        recommendation: None before the first complete trial, or one at the target.
        advice: what the posterior says of every batch size, in the goal's units; None before the first value.
        by_batch_size: the best of the trials of each batch size.
        elapsed_seconds: wall time of all sessions of the study.
        machines: what is best on each, where there are several.
        to_target: how soon a value was reached; None before the first epoch.
        confirmation: what the test set says; None before `--confirm`.
        gradient_noise: measured while trials trained; None where no gradient was looked at.
        at_target: who reached the target, where the goal has one; None for another.
        front: for the goal `pareto`, what no other batch size is both faster and as good as, fastest first.
        max_batch_size: the largest of the space that is known to fit on the machine; None where none is.
        accumulate: whether larger ones are trained in micro-batches.
        largest_of_space: the largest that the study may try.
        memory_bytes: of device memory, that training may use there; None where nobody said.
        step_time: the law of step times there; None with fewer than three batch sizes.
        fastest_by_laws: where steps to the target times seconds per step are least, in examples; None where one of the
            laws is not known or not followed.
        notes: what the curves say that a table does not.
        outlook: what would change the answer.
        question: what was asked: the space, and how many examples train and validate.
        dates: when the first trial began and the last one ended, as ISO 8601; empty where Optuna does not say.
        versions: of what trained and searched.
    """

    study: str
    goal: dict[str, Any]
    metric: Metric
    storage: str
    machine: dict[str, Any]
    trials: dict[str, int]
    recommendation: Recommendation | None
    advice: Advice | None
    by_batch_size: list[BatchSizeRow]
    elapsed_seconds: float
    machines: list[MachineAdvice] = field(default_factory=list)
    to_target: ToTarget | None = None
    confirmation: Confirmation | None = None
    gradient_noise: GradientNoise | None = None
    at_target: TargetAnswer | None = None
    front: list[Estimate] = field(default_factory=list)
    max_batch_size: int | None = None
    accumulate: bool = False
    largest_of_space: int | None = None
    memory_bytes: int | None = None
    step_time: StepTimeFit | None = None
    fastest_by_laws: float | None = None
    notes: list[str] = field(default_factory=list)
    outlook: list[str] = field(default_factory=list)
    question: dict[str, Any] = field(default_factory=dict)
    dates: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    elsewhere: bool = False

    @property
    def advised(self) -> Advice | None:
        """The advice, in the goal's units; None before there is something to recommend."""
        return self.advice if self.recommendation is not None else None

    @property
    def in_metric(self) -> Advice | None:
        """The advice, where it is in the metric's units, and not in what a target costs."""
        return self.advice if self.at_target is None else None

    @property
    def target(self) -> Target | None:
        """What the goal asks the metric to get to; None for a goal without a target."""
        return None if self.at_target is None else self.metric.target(self.at_target.target)

    def ends_early(self, row: Estimate | Recommendation) -> bool:
        """Whether a run is expected to end by itself before the goal's last epoch."""
        return self.at_target is None and row.epochs < self.goal["epochs"] - EARLY_EPOCHS

    def describe(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def advise_from(
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    metric: Metric,
    *,
    max_epochs: int,
    tolerance: float | None = None,
    max_batch_size: int | None = None,
    seconds_per_epoch: Callable[[int], float] | None = None,
    counts: Counts | None = None,
    prefer: Prefer = "balanced",
) -> Advice | None:
    """What the posterior says; None before the first value, and where all values are the same.

    Args:
        trials: of one study.
        space: of the study.
        metric: what it watches.
        max_epochs: of a whole trial.
        tolerance: what counts as equally good, in the metric's units; None for what matters (`search/advising.py`).
        max_batch_size: what the machine that is advised holds, in examples; None for no limit.
        seconds_per_epoch: batch size -> seconds, where that machine was measured; else learned from the trials.
        counts: as of `as_trial`.
        prefer: what is recommended.
    """
    # Not at the top: the numerics take a second to load, and a study's first lines need not wait for them.
    from batchopt.search.advising import advise

    whole = [trial for trial in trials if trial.batch_size and trial.learning_rate]
    if never_varies(whole) is not None:
        return None
    found = advise(
        [as_trial(trial, held=False, max_epochs=max_epochs, counts=counts, sign=metric.sign) for trial in whole],
        space,
        max_epochs=max_epochs,
        sign=metric.sign,
        seconds_per_epoch=seconds_per_epoch or epoch_seconds(trials),
        tolerance=tolerance,
        max_batch_size=max_batch_size,
        prefer=prefer,
    )
    seen = [epoch["value"] for trial in whole for epoch in trial.epochs if epoch["value"] is not None]
    return None if found is None else _within(found, *metric.limits(seen))


def _within(advice: Advice, least: float, most: float) -> Advice:
    """The same, with no value that the metric cannot have, which a posterior does not know."""
    named = (advice.recommended, advice.best, advice.fastest)
    held = {
        id(row): replace(row, **{name: min(max(getattr(row, name), least), most) for name in ("mean", "low", "high")})
        for row in (*named, *advice.by_batch_size)
    }
    # Which row of the table is recommended is told by its being the same one.
    recommended, best, fastest = (held[id(row)] for row in named)
    table = [held[id(row)] for row in advice.by_batch_size]
    return replace(advice, recommended=recommended, best=best, fastest=fastest, by_batch_size=table)


def recommend(
    trials: Sequence[TrialRecord], advice: Advice | None, goal: Goal, metric: Metric, draws: Draws = unmetered
) -> Recommendation | None:
    """What is recommended, with what its own trial reached; None where no trial is complete.

    Args:
        trials: of the study.
        advice: in the units of what is asked for.
        goal, metric: what that is.
        draws: batch size and seconds of training -> joules; None where nobody knows.
    """
    if advice is None or not advice.complete:
        return None
    row = advice.recommended
    seen = next((trial for trial in trials if trial.number == row.trial), None)
    return Recommendation(
        batch_size=row.batch_size,
        learning_rate=row.learning_rate,
        extra=dict(row.extra),
        quantity=kind_of(goal, metric).value_names[0],
        expected=row.mean,
        low=row.low,
        high=row.high,
        chance_within=row.chance_within,
        tolerance=advice.tolerance,
        seconds=row.seconds,
        epochs=row.epochs,
        value=goal.counted({epoch["epoch"]: epoch["value"] for epoch in seen.epochs}, metric) if seen else None,
        train_seconds=seen.train_seconds if seen else None,
        trial=seen.number if seen else None,
        joules=draws(row.batch_size, row.seconds),
    )


def compared(
    rows: Sequence[BatchSizeRow],
    advice: Advice | None,
    to_target: ToTarget | None,
    sign: float,
    *,
    in_values: bool = True,
    epochs: int = 0,
    draws: Draws = unmetered,
) -> list[BatchSizeRow]:
    """The rows with what each batch size gains and costs against the common one, and how soon it is at the target.

    Args:
        rows: of each batch size.
        advice: of the study; None where there is none.
        to_target: how soon a value was reached.
        sign: 1 where larger values are better, -1 where smaller ones are.
        in_values: whether the advice is in the metric's units, so that it tells of a gain.
        epochs: of a whole run, where the advice does not say how many it takes.
        draws: as of `recommend`.
    """
    common = advice.at(COMMON_BATCH_SIZE) if advice is not None and in_values else None
    reached = {} if to_target is None else {at.batch_size: at for at in to_target.reached}
    found = []
    for row in rows:
        estimate, there = None if advice is None else advice.at(row.batch_size), reached.get(row.batch_size)
        seconds = row.seconds_per_epoch * epochs if estimate is None else estimate.seconds
        found.append(
            replace(
                row,
                gain=sign * (estimate.mean - common.mean) if estimate and common else None,
                time_ratio=estimate.seconds / common.seconds if estimate and common and common.seconds else None,
                epochs_to_target=there.epochs if there else None,
                seconds_to_target=there.seconds if there else None,
                joules=draws(row.batch_size, seconds),
            )
        )
    return found
