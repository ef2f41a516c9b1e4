"""What was trained of each batch size."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        validation_accuracy: with it, after `epochs` epochs, in 0 to 1; None where all trials diverged.
        epochs: how many epochs that trial was trained; fewer than the goal's where all trials were stopped early.
        seconds_per_epoch: on the training clock, the median of all its epochs.
        examples_per_second: the median of all its epochs.
        trials: how many trials had this batch size.
        diverged: how many of them did.
        train_loss, validation_loss: after the last epoch of the best trial, the first as it was during that epoch;
            their difference is the generalization gap. None where they are not finite.
        loss_spread: how far the validation loss of its trials jumps from epoch to epoch: standard deviation around a
            line through the last epochs, the median trial's; None where none has three epochs.
        peak_bytes: the most device memory that an epoch took; None where the device does not tell.
        points_gained: expected accuracy less that of batch size 32 at its own best rate, in 0 to 1; None where that is
            not known.
        time_ratio: seconds of a whole trial, in parts of batch size 32's; None as above.
        epochs_to_target, seconds_to_target: until the report's target was reached; None where it was not.
    """

    batch_size: int
    learning_rate: float
    validation_accuracy: float | None
    epochs: int
    seconds_per_epoch: float
    examples_per_second: float
    trials: int
    diverged: int = 0
    train_loss: float | None = None
    validation_loss: float | None = None
    loss_spread: float | None = None
    peak_bytes: int | None = None
    points_gained: float | None = None
    time_ratio: float | None = None
    epochs_to_target: float | None = None
    seconds_to_target: float | None = None


def epoch_seconds(trials: Sequence[TrialRecord]) -> Callable[[int], float]:
    """Batch size -> seconds per epoch: the median of its epochs; foreseen from the others' where it has none."""
    measured = {row.batch_size: row.seconds_per_epoch for row in by_batch_size(trials)}
    foreseen = EpochCost(list(measured), list(measured.values()))
    return lambda batch_size: measured.get(batch_size) or foreseen(batch_size)


def by_batch_size(trials: Sequence[TrialRecord]) -> list[BatchSizeRow]:
    """A row for each batch size that was trained at least one epoch, ascending.

    Its best trial is the one trained furthest of those that did not diverge, and of those the most accurate.
    """
    rows = []
    trained = [trial for trial in trials if trial.epochs and trial.batch_size and trial.learning_rate]
    for size in sorted({trial.batch_size for trial in trained if trial.batch_size}):
        same = [trial for trial in trained if trial.batch_size == size]
        best = max(same, key=lambda trial: (math.isfinite(accuracy(trial)), len(trial.epochs), accuracy(trial)))
        fine = math.isfinite(accuracy(best))
        epochs = [epoch for trial in same for epoch in trial.epochs]
        assert best.learning_rate is not None
        rows.append(
            BatchSizeRow(
                batch_size=size,
                learning_rate=best.learning_rate,
                validation_accuracy=accuracy(best) if fine else None,
                epochs=len(best.epochs),
                seconds_per_epoch=statistics.median([epoch["train_seconds"] for epoch in epochs]),
                examples_per_second=statistics.median([epoch["examples_per_second"] for epoch in epochs]),
                trials=len(same),
                diverged=sum(trial.note == DIVERGED for trial in same),
                train_loss=best.last.get("train_loss") if fine else None,
                validation_loss=best.last.get("validation_loss") if fine else None,
                loss_spread=loss_spread(same),
                peak_bytes=max((epoch.get("peak_bytes") or 0 for epoch in epochs), default=0) or None,
            )
        )
    return rows


def count_states(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials, by state, the states that none is in left out."""
    return dict(Counter(trial.state for trial in trials))


def accuracy(trial: TrialRecord) -> float:
    """Validation accuracy after a trial's last epoch; -inf before its first, and where the trial diverged."""
    value = None if trial.note == DIVERGED else trial.last.get("validation_accuracy")
    return float("-inf") if value is None else float(value)
