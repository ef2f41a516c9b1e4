"""How a trial ends, by the goal of its study: when it has what the goal asks for, with which values, or without one.

Values in seconds are those of the study's reference machine, the first that worked on it, so that trials of all
machines compare: epochs, which belong to the model, times seconds per epoch there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from batchopt.goals.kinds import kind_of
from batchopt.machine.capacity import Capacity
from batchopt.measured import Epoch
from batchopt.optuna_private import trial_id_of
from batchopt.question.space import BATCH_SIZE
from batchopt.report.answer.places import place_of
from batchopt.store.attributes import ENGINES, MEMORY_LIMITS, REFERENCE
from batchopt.store.history import read_trials
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import Measurements
from batchopt.store.stamp import Stamp


@dataclass(frozen=True)
class End:
    """How a trial ends.

    Attributes:
        state: `complete` or `pruned`.
        write: puts that down, given the trial's number.
        note: in a few words, for the screen; empty where the state says it all.
        seconds_to_target: where there is a target and it was reached.
    """

    state: str
    write: Callable[[int], None]
    note: str = ""
    seconds_to_target: float | None = None


class Ending:
    """The ends of one study's trials.

    Args:
        ledger: of the study, in whose turn this is made.
        stamp: the study's.
        capacity: of this machine.

    Attributes:
        last_epoch: after which a trial is over.
        target: at which it is over too; None where the goal has none.
        elsewhere: batch size -> seconds per epoch on the reference machine; None where that is this one, or where
            nothing was measured there.
    """

    def __init__(self, ledger: Ledger, stamp: Stamp, capacity: Capacity) -> None:
        self.last_epoch = stamp.goal.epochs
        self.target = stamp.target
        self.elsewhere: Callable[[int], float] | None = None
        self._ledger = ledger
        self._goal, self._metric = stamp.goal, stamp.metric
        self._kind = kind_of(stamp.goal, stamp.metric)
        self._capacity = capacity
        if not self._kind.in_seconds:
            return
        reference = ledger.study.user_attrs.get(REFERENCE)
        if reference is None:
            reference = capacity.machine
            ledger.transactions.again(lambda: ledger.study.set_user_attr(REFERENCE, reference))
        if reference != capacity.machine:
            self.elsewhere = place_of(
                reference,
                measurements=Measurements(ledger.db),
                stamp=stamp,
                trials=read_trials(ledger.study, ledger.records),
                engines=ledger.study.user_attrs.get(ENGINES, {}),
                limits=ledger.study.user_attrs.get(MEMORY_LIMITS, {}),
                described={},
                name="",
                accumulate=capacity.accumulate,
            ).seconds_per_epoch

    def over(self, figures: Epoch) -> bool:
        """Whether an epoch was its trial's last."""
        reached = self.target is not None and self.target.met(figures.value)
        return reached or figures.epoch == self.last_epoch

    def value(self, number: int, figures: Epoch) -> float:
        """What a trial counts by after an epoch, which has been written."""
        if self._goal.value == "last":
            return figures.value
        return self._goal.counted(self._ledger.frozen(number).intermediate_values, self._metric)

    def of(self, number: int, figures: Epoch) -> End:
        """The end of a trial after its last epoch, which has been written."""
        ledger, curve = self._ledger, self._ledger.frozen(number).intermediate_values
        outcome = self._kind.outcome(curve, self._seconds_per_epoch(number) if self._kind.in_seconds else 0.0)
        values = outcome.values
        if values is None:
            return End("pruned", lambda trial: ledger.miss(trial, outcome.spent_s, outcome.short_by), outcome.note)
        return End("complete", lambda trial: ledger.complete(trial, *values), outcome.note, outcome.seconds_to_target)

    def _seconds_per_epoch(self, number: int) -> float:
        """On the reference machine; where nothing was measured there, what this trial's epochs took."""
        trial = self._ledger.frozen(number)
        foretold = self.elsewhere or self._capacity.seconds_per_epoch()
        if foretold is not None:
            return foretold(trial.params[BATCH_SIZE])
        key = trial_id_of(trial)
        epochs = self._ledger.transactions.again(lambda: self._ledger.records.epochs([key])[key])
        return float(statistics.median(epoch["train_seconds"] for epoch in epochs))
