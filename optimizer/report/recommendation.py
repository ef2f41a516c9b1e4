"""From trials to advice: which batch size, which learning rate, and what each batch size is worth.

What is expected of a configuration comes from the posterior (`search/advice.py`), what was seen of it from the trials.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from optimizer.report.confirmation import Confirmation
from optimizer.report.noise import GradientNoise
from optimizer.report.targets import ToTarget
from optimizer.search.costs import EpochCost
from optimizer.search.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from optimizer.store.history import TrialRecord, as_trial

if TYPE_CHECKING:
    from optimizer.report.goals import TimeAnswer
    from optimizer.search.advice import Advice, Estimate


@dataclass(frozen=True)
class Recommendation:
    """What we advise.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        extra: values of the extra dimensions.
        expected_accuracy: validation accuracy after the last epoch, by the posterior, in 0 to 1.
        low, high: its 90 % interval.
        validation_accuracy: what its own trial reached, in 0 to 1.
        train_seconds: of that trial, on the training clock.
        trial: the number of the trial.
    """

    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    expected_accuracy: float
    low: float
    high: float
    validation_accuracy: float
    train_seconds: float
    trial: int

    @property
    def params(self) -> dict[str, Any]:
        """By the names of its dimensions."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}


@dataclass(frozen=True)
class BatchSizeRow:
    """What is known of one batch size.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: the best one tried.
        validation_accuracy: with it, after `epochs` epochs, in 0 to 1; None where all trials diverged.
        epochs: how many epochs that trial was trained; fewer than the goal's where all trials were stopped early.
        seconds_per_epoch: on the training clock, the median of all its epochs.
        examples_per_second: the median of all its epochs.
        trials: how many trials had this batch size.
    """

    batch_size: int
    learning_rate: float
    validation_accuracy: float | None
    epochs: int
    seconds_per_epoch: float
    examples_per_second: float
    trials: int


@dataclass(frozen=True)
class MachineAdvice:
    """What is best on one of several machines of a study, from the trials of all of them.

    Attributes:
        fingerprint: the machine's.
        name: for people.
        batch_size, learning_rate: as recommended there; None before the first complete trial that fits there.
        train_seconds: of the whole trial there; None where nothing was measured there.
        fastest: the batch size that is as good and takes least time there; None where nothing was measured there.
        max_batch_size: the largest that fits there, in examples; None where all do.
    """

    fingerprint: str
    name: str
    batch_size: int | None
    learning_rate: float | None
    train_seconds: float | None
    fastest: int | None
    max_batch_size: int | None


@dataclass(frozen=True)
class Report:
    """All that is said of a study; `describe` is its JSON.

    Attributes:
        machine: the machine that it is for, as it describes itself; empty before the first trial.
        trials: how many trials, by state.
        recommendation: None before the first complete trial.
        advice: what the posterior says of every batch size; None before the first value.
        elapsed_seconds: wall time of all sessions of the study.
        machines: what is best on each, where there are several.
        to_target: how soon a validation accuracy was reached; None before the first epoch.
        confirmation: what the test set says; None before `--confirm`.
        gradient_noise: measured while trials trained; None where no gradient was looked at.
        time: the answer where the goal is `time`; its advice then stands for `recommendation` and `advice`, which are
            None.
        front: for the goal `pareto`, what no other batch size is both faster and as accurate as, fastest first.
    """

    study: str
    goal: dict[str, Any]
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
    time: TimeAnswer | None = None
    front: list[Estimate] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def advise_from(
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    *,
    max_epochs: int,
    tolerance: float | None = None,
    max_batch_size: int | None = None,
) -> Advice | None:
    """What the posterior says; None before the first value.

    Args:
        trials: of one study.
        space: of the study.
        max_epochs: of a whole trial.
        tolerance: what counts as equally good, in accuracy; None for one standard error.
        max_batch_size: what the machine that is advised holds, in examples; None for no limit.
    """
    # Not at the top: the numerics take a second to load, and a study's first lines need not wait for them.
    from optimizer.search.advice import advise

    whole = [trial for trial in trials if trial.batch_size and trial.learning_rate]
    return advise(
        [as_trial(trial, held=False, max_epochs=max_epochs) for trial in whole],
        space,
        max_epochs=max_epochs,
        sign=1.0,
        seconds_per_epoch=epoch_seconds(trials),
        tolerance=tolerance,
        max_batch_size=max_batch_size,
    )


def epoch_seconds(trials: Sequence[TrialRecord]) -> Callable[[int], float]:
    """Batch size -> seconds per epoch: the median of its epochs; foreseen from the others' where it has none."""
    measured = {row.batch_size: row.seconds_per_epoch for row in by_batch_size(trials)}
    foreseen = EpochCost(list(measured), list(measured.values()))
    return lambda batch_size: measured.get(batch_size) or foreseen(batch_size)


def recommend(trials: Sequence[TrialRecord], advice: Advice | None) -> Recommendation | None:
    """The configuration that is expected best, with what its own trial reached; None where no trial is complete."""
    if advice is None or not advice.complete:
        return None
    best = advice.best
    seen = next(trial for trial in trials if trial.number == best.trial)
    return Recommendation(
        batch_size=best.batch_size,
        learning_rate=best.learning_rate,
        extra=dict(best.extra),
        expected_accuracy=best.mean,
        low=best.low,
        high=best.high,
        validation_accuracy=accuracy(seen),
        train_seconds=seen.train_seconds,
        trial=best.trial,
    )


def by_batch_size(trials: Sequence[TrialRecord]) -> list[BatchSizeRow]:
    """A row for each batch size that was trained at least one epoch, ascending.

    Its best trial is the one trained furthest, and of those the most accurate.
    """
    rows = []
    trained = [trial for trial in trials if trial.epochs and trial.batch_size and trial.learning_rate]
    for size in sorted({trial.batch_size for trial in trained if trial.batch_size}):
        same = [trial for trial in trained if trial.batch_size == size]
        best = max(same, key=lambda trial: (accuracy(trial) >= 0, len(trial.epochs), accuracy(trial)))
        epochs = [epoch for trial in same for epoch in trial.epochs]
        assert best.learning_rate is not None
        rows.append(
            BatchSizeRow(
                batch_size=size,
                learning_rate=best.learning_rate,
                validation_accuracy=best.last.get("validation_accuracy"),
                epochs=len(best.epochs),
                seconds_per_epoch=statistics.median([epoch["train_seconds"] for epoch in epochs]),
                examples_per_second=statistics.median([epoch["examples_per_second"] for epoch in epochs]),
                trials=len(same),
            )
        )
    return rows


def count_states(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials, by state, the states that none is in left out."""
    return dict(Counter(trial.state for trial in trials))


def accuracy(trial: TrialRecord) -> float:
    """Validation accuracy after a trial's last epoch; -inf before its first, or where it is not a number."""
    value = trial.last.get("validation_accuracy")
    return float("-inf") if value is None else float(value)
