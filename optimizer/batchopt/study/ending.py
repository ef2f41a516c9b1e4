"""How a trial ends, by the goal of its study: when it has what the goal asks for, with which values, or without one.

Values in seconds, or joules, are those of the study's reference machine, the first that worked on it, so that trials of
all machines compare: epochs, which belong to the model, times what an epoch costs there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchopt.goals.kinds import kind_of
from batchopt.machine.capacity import Capacity
from batchopt.machine.energy import Power
from batchopt.measured import Epoch
from batchopt.report.answer.places import place_of
from batchopt.store.attributes import DIVERGED, ENGINES, MEMORY_LIMITS, REFERENCE
from batchopt.store.ends import TrialEnd, completed, diverged, failed, missed, refused, without_value
from batchopt.store.history import read_trials
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import Measurements
from batchopt.store.stamp import Stamp

NO_ENERGY = "the device told no energy while it was trained"
"""Why a trial has no value whose goal counts joules."""

NO_NUMBER = "the metric is not a number, though the loss is"
"""The same of any goal."""


@dataclass(frozen=True)
class End:
    """How a trial ends.

    Attributes:
        state: `complete` or `pruned`; `fail` where what the goal counts was not measured.
        how: the same as it is written.
        note: in a few words, for the screen; empty where the state says it all.
        cost_to_target: where there is a target and it was reached.
    """

    state: str
    how: TrialEnd
    note: str = ""
    cost_to_target: float | None = None


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
        power: what the reference machine draws.
    """

    def __init__(self, ledger: Ledger, stamp: Stamp, capacity: Capacity) -> None:
        self.last_epoch = stamp.goal.epochs
        self.target = stamp.target
        self.elsewhere: Callable[[int], float] | None = None
        self.power = capacity.power
        self._ledger = ledger
        self._goal, self._metric = stamp.goal, stamp.metric
        self._kind = kind_of(stamp.goal, stamp.metric)
        self._capacity = capacity
        if not self._kind.cost_unit:
            return
        reference = ledger.study.user_attrs.get(REFERENCE)
        if reference is None:
            reference = capacity.machine
            ledger.transactions.again(lambda: ledger.study.set_user_attr(REFERENCE, reference))
        if reference != capacity.machine:
            place = place_of(
                reference,
                measurements=Measurements(ledger.db),
                stamp=stamp,
                trials=read_trials(ledger.study, ledger.records),
                engines=ledger.study.user_attrs.get(ENGINES, {}),
                limits=ledger.study.user_attrs.get(MEMORY_LIMITS, {}),
                described=ledger.records.machines().get(reference, {}),
                name="",
                accumulate=capacity.accumulate,
            )
            self.elsewhere, self.power = place.seconds_per_epoch, place.power

    @property
    def counts_joules(self) -> bool:
        """Whether a trial's value is of joules, so that its epochs need theirs."""
        return self._kind.cost_unit == "J"

    def over(self, figures: Epoch) -> bool:
        """Whether an epoch was its trial's last."""
        reached = self.target is not None and self.target.met(figures.value)
        return reached or figures.epoch == self.last_epoch

    def value(self, number: int, figures: Epoch) -> float:
        """What a trial counts by after an epoch, which has been written."""
        if self._goal.value == "last":
            return figures.value
        return self._goal.counted(self._ledger.frozen(number).intermediate_values, self._metric)

    def of(self, number: int, size: int, figures: Epoch) -> End:
        """The end of a trial that is held, of this batch size, after its last epoch, written or not."""
        unit = self._kind.cost_unit
        epochs = {row["epoch"]: row for row in self._ledger.epochs_of(number)}
        epochs[figures.epoch] = vars(figures)
        cost = self._cost_per_epoch(size, list(epochs.values())) if unit else 0.0
        if cost is None:
            return End("fail", failed(NO_ENERGY), NO_ENERGY)
        curve = {epoch: row["value"] for epoch, row in sorted(epochs.items()) if row["value"] is not None}
        outcome = self._kind.outcome(curve, cost)
        if outcome.values is None:
            return End("pruned", missed(outcome.spent, outcome.short_by, unit), outcome.note)
        return End("complete", completed(*outcome.values), outcome.note, outcome.cost_to_target)

    def without_value(self, figures: Epoch) -> End:
        """The end of a trial whose last epoch has none: training diverged, or its metric is not a number."""
        if figures.diverged:
            return self.diverged()
        return End("pruned", refused(NO_NUMBER, infeasible=self._ledger.counts_costs), NO_NUMBER)

    def stopped(self) -> End:
        """The end of a trial before its last epoch."""
        return End("pruned", without_value(infeasible=self._ledger.counts_costs))

    def diverged(self) -> End:
        """The end of a trial whose loss is not finite."""
        return End("pruned", diverged(infeasible=self._ledger.counts_costs), DIVERGED)

    def _cost_per_epoch(self, size: int, epochs: Sequence[Mapping[str, Any]]) -> float | None:
        """On the reference machine; where nothing was measured there, what this trial's epochs cost.

        None where the goal counts joules and nobody was told any. Where so little was trained that the counter has not
        ticked yet, the device counts as drawing the most that it may.
        """
        power, foretold = self.power, self.elsewhere or self._capacity.seconds_per_epoch()
        metered = power.known or not self.counts_joules
        if foretold is not None and metered:
            return foretold(size) * self._kind.price(power)(size)
        if not metered:
            power = Power(power.max_w)
            for epoch in epochs:
                power.tell(size, epoch["joules"], epoch["train_seconds"])
            if not power.known and power.max_w and any(epoch["joules"] is not None for epoch in epochs):
                power = Power(power.max_w)
                power.tell(size, power.max_w, 1.0)
            if not power.known:
                return None
        seconds = statistics.median(epoch["train_seconds"] for epoch in epochs) if foretold is None else foretold(size)
        return float(seconds) * self._kind.price(power)(size)
