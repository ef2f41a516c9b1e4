"""What was trained of each batch size."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batchopt.question.goal import Counts
from batchopt.question.metric import Metric
from batchopt.report.answer.notes import loss_spread
from batchopt.search.costs import EpochCost
from batchopt.store.attributes import DIVERGED
from batchopt.store.history import TrialRecord


@dataclass(frozen=True)
class BatchSizeRow:
    """What is known of one batch size.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: the best one tried.
        value: validation metric with it, of the epoch that it counts by; None where all trials diverged.
        epochs: how many epochs that trial was trained; fewer than the goal's where all trials were stopped early.
        seconds_per_epoch: on the training clock, the median of all its epochs.
        examples_per_second: the median of all its epochs.
        trials: how many trials had this batch size.
        diverged: how many of them did.
        train_loss, validation_loss: of that epoch, the first as it was during it; their difference is the
            generalization gap. None where they are not finite.
        loss_spread: how far the validation loss of its trials jumps from epoch to epoch: standard deviation around a
            line through the last epochs, the median trial's; None where none has three epochs.
        peak_bytes: the most device memory that an epoch took; None where the device does not tell.
        gain: by how much the value that is expected is better than that of batch size 32 at its own best rate; None
            where that is not known.
        time_ratio: seconds that one more run is expected to take, in parts of batch size 32's; None as above.
        joules: that one more run is expected to draw; None where no energy was measured.
        epochs_to_target, seconds_to_target: until the report's target was reached; None where it was not.
    """

    batch_size: int
    learning_rate: float
    value: float | None
    epochs: int
    seconds_per_epoch: float
    examples_per_second: float
    trials: int
    diverged: int = 0
    train_loss: float | None = None
    validation_loss: float | None = None
    loss_spread: float | None = None
    peak_bytes: int | None = None
    gain: float | None = None
    time_ratio: float | None = None
    epochs_to_target: float | None = None
    seconds_to_target: float | None = None
    joules: float | None = None


def epoch_seconds(trials: Sequence[TrialRecord]) -> Callable[[int], float]:
    """Batch size -> seconds per epoch: the median of its epochs; foreseen from the others' where it has none."""
    medians = {size: _median(same, "train_seconds") for size, same in _trained(trials).items()}
    # A job may tell no seconds.
    measured = {size: seconds for size, seconds in medians.items() if seconds > 0}
    foreseen = EpochCost(list(measured), list(measured.values()))
    return lambda batch_size: measured.get(batch_size) or foreseen(batch_size)


def by_batch_size(trials: Sequence[TrialRecord], metric: Metric, counts: Counts = "last") -> list[BatchSizeRow]:
    """A row for each batch size that was trained at least one epoch, ascending.

    Its best trial is the best of those that were trained to their end, or ended by themselves; where none was, of
    those trained furthest. One that diverged comes last. `counts` is by which of its epochs a trial counts.
    """
    rows = []
    for size, same in _trained(trials).items():
        scores = {trial.number: score(trial, metric, counts) for trial in same}
        longest = max(len(trial.epochs) for trial in same)
        trained = {trial.number: longest if trial.state == "complete" else len(trial.epochs) for trial in same}
        best = max(same, key=lambda t: (math.isfinite(scores[t.number]), trained[t.number], scores[t.number]))
        fine = math.isfinite(scores[best.number])
        epochs = [epoch for trial in same for epoch in trial.epochs]
        counted = counted_epoch(best, metric, counts) if fine else {}
        assert best.learning_rate is not None
        rows.append(
            BatchSizeRow(
                batch_size=size,
                learning_rate=best.learning_rate,
                value=counted.get("value"),
                epochs=len(best.epochs),
                seconds_per_epoch=_median(same, "train_seconds"),
                examples_per_second=_median(same, "examples_per_second"),
                trials=len(same),
                diverged=sum(trial.note == DIVERGED for trial in same),
                train_loss=counted.get("train_loss"),
                validation_loss=counted.get("validation_loss"),
                loss_spread=loss_spread(same),
                peak_bytes=max((epoch.get("peak_bytes") or 0 for epoch in epochs), default=0) or None,
            )
        )
    return rows


def count_states(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials, by state, the states that none is in left out."""
    return dict(Counter(trial.state for trial in trials))


def score(trial: TrialRecord, metric: Metric, counts: Counts = "last") -> float:
    """What a trial counts by, such that more is better; -inf before its first epoch, and where it diverged."""
    value = None if trial.note == DIVERGED else counted_epoch(trial, metric, counts).get("value")
    return -math.inf if value is None else metric.score(value)


def counted_epoch(trial: TrialRecord, metric: Metric, counts: Counts) -> dict[str, Any]:
    """The row of the epoch that a trial counts by; empty before its first."""
    known = [row for row in trial.epochs if row["value"] is not None]
    if counts == "last" or not known:
        return trial.last
    return max(known, key=lambda row: metric.score(row["value"]))


def _trained(trials: Sequence[TrialRecord]) -> dict[int, list[TrialRecord]]:
    """The trials that were trained at least one epoch, by batch size, ascending."""
    found: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.batch_size or 0):
        if trial.epochs and trial.batch_size and trial.learning_rate:
            found[trial.batch_size].append(trial)
    return found


def _median(trials: Sequence[TrialRecord], name: str) -> float:
    return float(statistics.median([epoch[name] for trial in trials for epoch in trial.epochs]))
