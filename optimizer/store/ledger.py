"""The ledger of one study: everything that is written while it goes on passes through here.

Optuna's tables are the truth for trials: parameters, values per epoch, states. Our own hold what Optuna has no place
for. A trial is written to only while its lease is this process's.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer.store.database import Database
from optimizer.store.history import DIVERGED, FAILURE, MEMORY
from optimizer.store.measurements import MeasuredOn, Measurements, MemoryRow, measured_on
from optimizer.store.owner import new_owner
from optimizer.store.records import Records
from optimizer.training.machine import Machine
from optimizer.training.messages import Epoch, Ready, StepTime

ELAPSED = "elapsed_seconds"
"""User attribute of a study: wall seconds of all its sessions."""

ENGINES = "engines"
"""User attribute of a study: the engine chosen on each machine, by the machine's fingerprint."""


class Ledger:
    """Writes one study; `owner` is this process's name on its leases."""

    def __init__(self, database: Database, study: Study) -> None:
        self.study = study
        self.records = Records(database.engine)
        self.owner = new_owner()
        self._trials: dict[int, Trial] = {}
        self._engine = ""
        self._database = database.engine
        self._measured: tuple[MeasuredOn, int | None] | None = None

    def count_started(self) -> int:
        """How many trials the study has, those that wait to be started left out."""
        return sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))

    def count_finished(self) -> int:
        """How many trials have ended, however they did."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def begin(self, number: int) -> None:
        """Own a trial that this process has just asked Optuna for."""
        frozen = self.frozen(number)
        self.records.take_lease(frozen._trial_id, self.owner)
        self._trials[number] = Trial(self.study, frozen._trial_id)

    def adopt(self) -> list[tuple[int, int]]:
        """Own the running trials that nobody owns: the number of each, and from which epoch it can go on."""
        self.records.forget_dead_owners()
        adopted = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.number in self._trials or not self.records.take_lease(frozen._trial_id, self.owner):
                continue
            self._trials[frozen.number] = Trial(self.study, frozen._trial_id)
            checkpoint = self.records.checkpoint(frozen._trial_id)
            adopted.append((frozen.number, 0 if checkpoint is None else checkpoint[0]))
        return adopted

    def frozen(self, number: int) -> FrozenTrial:
        """A trial as Optuna has it now."""
        return self.study.get_trials(deepcopy=False)[number]

    def owned(self) -> list[int]:
        """The numbers of the unfinished trials of this process."""
        return list(self._trials)

    def renew(self) -> None:
        """Keep this process's trials its own."""
        self.records.renew_leases([trial._trial_id for trial in self._trials.values()], self.owner)

    def release(self) -> None:
        """Let all trials go as they are; they stay RUNNING, for anyone to take up."""
        for trial in self._trials.values():
            self.records.release_lease(trial._trial_id, self.owner)
        self._trials.clear()

    def add_epoch(self, number: int, machine: Machine, figures: Epoch, compile_seconds: float) -> None:
        """Keep one epoch; Optuna sees its validation accuracy."""
        trial = self._trials[number]
        self.records.add_epoch(trial._trial_id, machine.fingerprint, figures, compile_seconds)
        known = self.frozen(number).intermediate_values
        if not figures.diverged and figures.epoch not in known:
            trial.report(figures.validation_accuracy, figures.epoch)

    def add_checkpoint(self, number: int, epoch: int, content: bytes) -> None:
        """Keep the state of an unfinished trial."""
        self.records.add_checkpoint(self._trials[number]._trial_id, epoch, content)

    def checkpoint(self, number: int) -> tuple[int, bytes] | None:
        """The epoch and state that an unfinished trial can go on from."""
        return self.records.checkpoint(self._trials[number]._trial_id)

    def complete(self, number: int, value: float) -> None:
        """All epochs are trained."""
        self._end(number, TrialState.COMPLETE, value)

    def prune(self, number: int) -> None:
        """Stopped early; the curve stays evidence."""
        self._end(number, TrialState.PRUNED)

    def diverge(self, number: int) -> None:
        """The loss is not finite: evidence against that corner, not an error."""
        self._trials[number].set_user_attr(DIVERGED, True)
        self._end(number, TrialState.PRUNED)

    def exceed_memory(self, number: int, bytes_over: float) -> None:
        """It does not fit; written once and last, as Optuna ignores a second constraint."""
        self._trials[number].set_constraint(MEMORY, bytes_over)
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int, why: str) -> None:
        """It cannot be trained, for a reason that is not the search's."""
        self._trials[number].set_user_attr(FAILURE, why)
        self._end(number, TrialState.FAIL)

    def set_elapsed(self, seconds: float) -> None:
        """Keep the wall seconds of all sessions."""
        self.study.set_user_attr(ELAPSED, round(seconds, 3))

    def elapsed(self) -> float:
        """The wall seconds of all sessions so far."""
        return float(self.study.user_attrs.get(ELAPSED, 0.0))

    def add_machine(self, machine: Machine, engine: str) -> None:
        """Remember a machine, and the engine that this study's program uses on it."""
        self._engine = engine
        self.records.add_machine(machine)
        self.study.set_user_attr(ENGINES, self.study.user_attrs.get(ENGINES, {}) | {machine.fingerprint: engine})

    def measured(
        self, ready: Ready, memory_limit: int | None, step_times: Sequence[StepTime], memory: Sequence[MemoryRow]
    ) -> None:
        """Keep what a probe has found with this program on this machine."""
        self._measured = (measured_on(ready.machine, ready.program, ready.engine), memory_limit)
        measurements = Measurements(self._database)
        measurements.add_step_times(self._measured[0], step_times)
        measurements.add_memory(*self._measured, memory)

    def add_memory(self, rows: Sequence[MemoryRow]) -> None:
        """Keep what a trial has found out about memory, on the machine that was measured."""
        if self._measured is not None:
            Measurements(self._database).add_memory(*self._measured, rows)

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        trial = self._trials[number]
        # A finished trial is immutable, so what summarises it is written first.
        for name, summary in self._summary(trial._trial_id).items():
            trial.set_user_attr(name, summary)
        self.study.tell(number, value, state=state)
        self.records.remove_checkpoint(trial._trial_id)
        self.records.release_lease(trial._trial_id, self.owner)
        del self._trials[number]

    def _summary(self, trial_id: int) -> dict[str, float | int | str | None]:
        """A trial in the words of its epochs: sums of seconds and steps, the last of the rest."""
        epochs = self.records.epochs([trial_id])[trial_id]
        if not epochs:
            return {"engine": self._engine, "epochs": 0}
        total = {
            name: sum(epoch[name] for epoch in epochs)
            for name in ("train_seconds", "evaluation_seconds", "compile_seconds", "steps")
        }
        last = {
            name: epochs[-1][name]
            for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "machine")
        }
        speed = statistics.median(epoch["examples_per_second"] for epoch in epochs)
        return {**last, **total, "examples_per_second": speed, "engine": self._engine, "epochs": len(epochs)}
