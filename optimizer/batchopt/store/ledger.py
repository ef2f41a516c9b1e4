"""The ledger of one study: everything that is written while it goes on passes through here.

Optuna's tables are the truth for trials: parameters, values per epoch, states. Our own hold what Optuna has no place
for. A trial is written to only while it is held, and each write looks at that itself (`held_trials.py`); what fails for
a reason that passes is done again (`transactions.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import sqlalchemy as sa
from optuna.study import Study

from batchopt.goals.kinds import kind_of
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.optuna_private import study_id_of
from batchopt.question.options import CHECKPOINT_LIMIT, LEASE_SECONDS
from batchopt.store.attributes import DEATHS
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.confirmations import Confirmations
from batchopt.store.database import Database
from batchopt.store.ends import (
    Overtaken,
    TrialEnd,
    completed,
    diverged,
    failed,
    out_of_memory,
    put_ends,
    refused,
    without_value,
)
from batchopt.store.held_trials import HeldTrials
from batchopt.store.leases import LeaseLost
from batchopt.store.records import put_epoch
from batchopt.store.stamp import Stamp
from batchopt.store.transactions import Transactions


class Ledger(HeldTrials):
    """Writes one study, its trials and what is of it as a whole.

    Args:
        database: of the study.
        study: in it.
        lease_seconds: how long a trial stays this process's without a word from it.
        transactions: how writes are done again; by default in silence.
        checkpoint_limit, checkpoints: bytes above which a trial's state is kept in a file, and where.

    Attributes:
        confirmations: the runs that confirm what is recommended.
    """

    def __init__(
        self,
        database: Database,
        study: Study,
        *,
        lease_seconds: float = LEASE_SECONDS,
        transactions: Transactions | None = None,
        checkpoint_limit: int = CHECKPOINT_LIMIT,
        checkpoints: str | None = None,
    ) -> None:
        states = Checkpoints(database.db, limit=checkpoint_limit, folder=checkpoints)
        super().__init__(database, study, lease_seconds, transactions or Transactions(database.db.url), states)
        self.confirmations = Confirmations(database.db, study_id_of(study))

    def check_state(self, size: int) -> None:
        """Whether trials' states of so many bytes can be kept.

        Raises:
            StorageError: neither the database nor a file can take them.
        """
        self._again(lambda: self._checkpoints.check(size))

    def add_epoch(
        self, number: int, machine: Machine, figures: Epoch, compile_seconds: float, checkpoint: bytes | None = None
    ) -> None:
        """Keep one epoch, and the state after it, in one transaction; Optuna sees its validation metric.

        Raises:
            LeaseLost: the trial is another's now; nothing was written.
        """
        placed = None if checkpoint is None else self._again(lambda: self._checkpoints.placed(checkpoint))
        if figures.diverged:
            # Not a number from there on, here as in Optuna, so that nobody takes a good value for its last.
            figures = dataclasses.replace(figures, value=math.nan)

        def put(connection: sa.Connection, trial_id: int) -> None:
            put_epoch(connection, trial_id, machine.fingerprint, figures, compile_seconds)
            if placed is not None:
                self._checkpoints.put(connection, trial_id, figures.epoch, placed)

        trial_id, epoch, value = self._id(number), figures.epoch, figures.value
        self._write(number, put, lambda: self.database.storage.set_trial_intermediate_value(trial_id, epoch, value))

    def add_checkpoint(self, number: int, epoch: int, content: bytes) -> None:
        """Keep the state of an unfinished trial; raises as `add_epoch`."""
        placed = self._again(lambda: self._checkpoints.placed(content))
        self._write(number, lambda connection, trial_id: self._checkpoints.put(connection, trial_id, epoch, placed))

    def checkpoint(self, number: int) -> tuple[int, bytes] | None:
        """The epoch and state that an unfinished trial can go on from.

        Raises:
            DamagedCheckpoint: its bytes are not those that were written.
        """
        return self._again(lambda: self._checkpoints.get(self._trials[number].trial_id))

    def checkpoint_epoch(self, number: int) -> int:
        """After which epoch the state is that an unfinished trial can go on from; 0 where there is none."""
        return self._again(lambda: self._checkpoints.epoch(self._id_of(number)))

    def epochs_of(self, number: int) -> list[dict[str, Any]]:
        """The epochs of a trial that is held, in order, as rows."""
        trial_id = self._id(number)
        return self._again(lambda: self.records.epochs([trial_id])[trial_id])

    def complete(self, number: int, *values: float) -> None:
        """It has what its goal asks for; raises as `add_epoch`, as do all the ends of a trial."""
        self.end(number, completed(*values))

    def prune(self, number: int) -> None:
        """Stopped early; the curve stays evidence."""
        self.end(number, without_value(infeasible=self.counts_costs))

    def diverge(self, number: int) -> None:
        """The loss is not finite: evidence against that corner, not an error."""
        self.end(number, diverged(infeasible=self.counts_costs))

    def refuse(self, number: int, why: str) -> None:
        """`build_model` refused its configuration: evidence against that corner, not an error."""
        self.end(number, refused(why, infeasible=self.counts_costs))

    def exceed_memory(self, number: int, bytes_over: float) -> None:
        """It does not fit."""
        self.end(number, out_of_memory(bytes_over))

    def fail(self, number: int, why: str) -> None:
        """It cannot be trained, for a reason that is not the search's."""
        self.end(number, failed(why))

    def count_death(self, number: int) -> int:
        """Its worker died; raises as `add_epoch`. Returns how many have, in all sessions, since its last new epoch."""
        trial = self.frozen(number)
        epochs, count = len(trial.intermediate_values), 1
        before = trial.user_attrs.get(DEATHS, {})
        if before.get("epochs") == epochs:
            count += before["deaths"]
        self.mark(number, DEATHS, {"epochs": epochs, "deaths": count})
        return count

    def end(self, number: int, end: TrialEnd) -> None:
        """End a trial in one transaction, with what summarises it: a finished one is immutable."""
        tried = False

        def put(connection: sa.Connection, trial_id: int) -> None:
            nonlocal tried
            try:
                put_ends(connection, {trial_id: end}, self._how, self._checkpoints)
            except Overtaken:
                raise LeaseLost(number) from None
            tried = True

        try:
            self._write(number, put)
        except LeaseLost:
            # A connection that breaks in its last moment does not say whether the end was kept.
            if not tried or self.frozen(number).state != end.state:
                raise
        self._trials.pop(number, None)

    @functools.cached_property
    def counts_costs(self) -> bool:
        """Whether the study's values are not those of its trials' curves, but what these cost."""
        stamp = self._again(lambda: Stamp.read(self.study))
        return stamp is not None and bool(kind_of(stamp.goal, stamp.metric).cost_unit)
