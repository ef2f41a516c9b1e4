"""The ledger of one study: everything that is written while it goes on passes through here.

Optuna's tables are the truth for trials: parameters, values per epoch, states. Our own hold what Optuna has no place
for. A trial is written to only while its lease is this process's, and each write looks at that itself (`sharing.py`);
what fails for a reason that passes is done again (`transactions.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from batchopt.errors import StorageFailed
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.question.options import CHECKPOINT_LIMIT, LEASE_SECONDS
from batchopt.store.attributes import DEATHS, DIVERGED, FAILURE, LEARNED_NOTHING, MEMORY, MISSED, NO_VALUE
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.confirmations import Confirmations
from batchopt.store.database import Database
from batchopt.store.deletion import guid_of, keep_place, named, study_gone
from batchopt.store.history import UNTRAINABLE, summary
from batchopt.store.leases import Deleted, Fence, LeaseLost, TurnLost, Turns, hold_lease
from batchopt.store.owner import new_owner
from batchopt.store.records import Records, put_attributes, put_epoch, take_lease
from batchopt.store.study_facts import StudyLedger
from batchopt.store.tables import optunas_trials
from batchopt.store.transactions import Transactions

T = TypeVar("T")


class _Held(NamedTuple):
    """A trial whose lease is written here."""

    trial_id: int
    guid: str
    owner: str


class Ledger(StudyLedger):
    """Writes one study, its trials and what is of it as a whole.

    Args:
        database: of the study.
        study: in it.
        lease_seconds: how long a trial stays this process's without a word from it.
        transactions: how writes are done again; by default in silence.
        checkpoint_limit, checkpoints: bytes above which a trial's state is kept in a file, and where.

    Attributes:
        database: as it was given.
        owner: this process's name on its leases, where no client is named.
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
        records = Records(database.engine, lease_seconds=lease_seconds)
        super().__init__(database.engine, study, records, transactions or Transactions(database.engine.url))
        self.owner = new_owner()
        self._study_name = self._again(lambda: study.study_name)
        self.confirmations = Confirmations(database.engine, study._study_id)
        self._turns = Turns(database.engine, study._study_id, self.owner, lease_seconds=lease_seconds)
        self._trials: dict[int, _Held] = {}
        self.transactions.explain = self._deleted
        self.database = database
        self._checkpoints = Checkpoints(database.engine, limit=checkpoint_limit, folder=checkpoints)
        self._fence = Fence(database.storage)

    def check_state(self, size: int) -> None:
        """Whether trials' states of so many bytes can be kept.

        Raises:
            StorageError: neither the database nor a file can take them.
        """
        self._again(lambda: self._checkpoints.check(size))

    def turn(self, patience: float = math.inf) -> AbstractContextManager[bool]:
        """This process's turn at asking; false where it did not come within so many seconds."""
        return self._turns.taken(self._fence, self.transactions, patience)

    def in_turn(self, operation: Callable[[], T]) -> T:
        """Do something in this process's turn, again where the turn was lost; it may be done twice without harm."""
        while True:
            with suppress(TurnLost), self.turn():
                return self._again(operation)

    def begin(self, number: int, owner: str | None = None) -> bool:
        """Own a running trial: one that was just asked for, or one that nobody owns.

        Args:
            number: the trial's.
            owner: whose it is to be, a client's name unlike any other's; this process's where None.

        Returns:
            Whether it is the owner's now; not where another one was faster, or where it has ended.
        """
        return self._again(lambda: self._begin(number, owner or self.owner))

    def frozen(self, number: int) -> FrozenTrial:
        """A trial as Optuna has it now."""
        return self._again(lambda: self.database.storage.get_trial(self._id_of(number)))

    def owned(self, owner: str | None = None) -> list[int]:
        """The numbers of the unfinished trials of one owner, or of all whose leases are written here."""
        return [number for number, held in self._trials.items() if owner in (None, held.owner)]

    def renew(self, owner: str | None = None) -> list[int]:
        """Keep an owner's trials its own, this process's where None.

        Returns:
            The numbers of those that are not any more; they are forgotten here.
        """
        owner = owner or self.owner
        mine = {number: held.trial_id for number, held in self._trials.items() if held.owner == owner}
        lost = self._again(lambda: self.records.renew_leases(mine.values(), owner))
        numbers = [number for number, trial_id in mine.items() if trial_id in lost]
        for number in numbers:
            del self._trials[number]
        return numbers

    def let_go(self, number: int) -> None:
        """Let a trial go as it is; it stays RUNNING, for anyone to take up."""
        held = self._trials.pop(number)
        self._again(lambda: self.records.release_lease(held.trial_id, held.owner))

    def release(self) -> None:
        """Let all trials go."""
        for number in self.owned():
            self.let_go(number)

    def add_epoch(
        self, number: int, machine: Machine, figures: Epoch, compile_seconds: float, checkpoint: bytes | None = None
    ) -> None:
        """Keep one epoch, and the state after it, in one transaction; Optuna sees its validation accuracy.

        Raises:
            LeaseLost: the trial is another's now; nothing was written.
        """
        placed = None if checkpoint is None else self._again(lambda: self._checkpoints.placed(checkpoint))

        def put(connection: sa.Connection, trial_id: int) -> None:
            put_epoch(connection, trial_id, machine.fingerprint, figures, compile_seconds)
            if placed is not None:
                self._checkpoints.put(connection, trial_id, figures.epoch, placed)

        # What diverges is not a number from there on, so that nobody takes a good value before it for its last.
        value = math.nan if figures.diverged else figures.validation_accuracy
        trial_id, epoch = self._id(number), figures.epoch
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

    def complete(self, number: int, *values: float) -> None:
        """It has what its goal asks for; raises as `add_epoch`, as do all the ends of a trial."""
        if NO_VALUE in self.frozen(number).constraints:
            # It was about to be pruned when its process died.
            self._constrain(number, NO_VALUE, 0.0)
        self._end(number, TrialState.COMPLETE, values)

    def prune(self, number: int) -> None:
        """Stopped early; the curve stays evidence."""
        self._hold_against(number)
        self._end(number, TrialState.PRUNED)

    def miss(self, number: int, seconds: float, short_by: float) -> None:
        """All epochs are trained, and the target was not reached: right-censored after so many seconds."""
        self._constrain(number, NO_VALUE, short_by)
        self._end(number, TrialState.PRUNED, attributes={MISSED: seconds})

    def diverge(self, number: int) -> None:
        """The loss is not finite: evidence against that corner, not an error."""
        self._hold_against(number)
        self._end(number, TrialState.PRUNED, attributes={DIVERGED: True})

    def refuse(self, number: int, why: str) -> None:
        """`build_model` refused its configuration: evidence against that corner, not an error."""
        self._hold_against(number)
        self._end(number, TrialState.PRUNED, attributes={UNTRAINABLE: why})

    def exceed_memory(self, number: int, bytes_over: float) -> None:
        """It does not fit."""
        self._constrain(number, MEMORY, bytes_over)
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int, why: str) -> None:
        """It cannot be trained, for a reason that is not the search's."""
        self._end(number, TrialState.FAIL, attributes={FAILURE: why})

    def count_death(self, number: int) -> int:
        """Its worker died; raises as `add_epoch`. Returns how many have, in all sessions, since its last new epoch."""
        trial = self.frozen(number)
        epochs, count = len(trial.intermediate_values), 1
        before = trial.user_attrs.get(DEATHS, {})
        if before.get("epochs") == epochs:
            count += before["deaths"]
        self._set(number, DEATHS, {"epochs": epochs, "deaths": count})
        return count

    def _begin(self, number: int, owner: str) -> bool:
        trial_id = self._id_of(number)
        try:
            with self.engine.begin() as connection:
                self._fence.begin(connection)
                take_lease(connection, trial_id, owner, self.records.lease_seconds)
                # After the taking: it may have ended, and its lease gone with it, since it was looked at.
                if self._state(connection, trial_id) != TrialState.RUNNING:
                    connection.rollback()
                    return False
                guid = named(connection, trial_id, self.study._study_id, self._checkpoints)
        except sa.exc.IntegrityError:
            return False
        self._trials[number] = _Held(trial_id, guid, owner)
        return True

    def _deleted(self, error: KeyError) -> StorageFailed | None:
        """What Optuna's `Record does not exist` means, where it is the study's."""
        with self.engine.connect() as connection:
            return study_gone(connection, self.study._study_id, self._study_name, self.database.url)

    def _end(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """End a trial, with what summarises it: a finished one is immutable."""
        trial_id, tried = self._id(number), 0
        told = {**attributes, **self._again(lambda: self._summary(trial_id))}

        def ours(connection: sa.Connection, trial_id: int) -> None:
            put_attributes(connection, trial_id, told)
            self._checkpoints.forget(connection, trial_id)

        def tell() -> None:
            nonlocal tried
            tried += 1
            self.database.storage.set_trial_state_values(trial_id, state, values)

        try:
            self._write(number, ours, tell)
        except LeaseLost:
            # A connection that breaks in its last moment does not say whether the end was kept.
            if tried < 2 or self.frozen(number).state != state:
                raise
        self._trials.pop(number, None)

    def _hold_against(self, number: int) -> None:
        """Mark a trial without a value as infeasible, where its curve is not of the study's one value.

        Optuna's samplers rank what was pruned by its last reported value, whatever that is of, and raise where there
        are two objectives. What is infeasible they rank by its constraints.
        """
        if self.study.directions != [StudyDirection.MAXIMIZE]:
            self._constrain(number, NO_VALUE, LEARNED_NOTHING)

    def _constrain(self, number: int, name: str, over: float) -> None:
        """Set a constraint, as Optuna does, which would ignore a second value of it."""
        trial_id, key = self._id(number), f"constraints:{name}"
        self._write(number, None, lambda: self.database.storage.set_trial_system_attr(trial_id, key, over))

    def _set(self, number: int, name: str, value: object) -> None:
        trial_id = self._id(number)
        self._write(number, None, lambda: self.database.storage.set_trial_user_attr(trial_id, name, value))

    def _write(
        self,
        number: int,
        ours: Callable[[sa.Connection, int], None] | None,
        optunas: Callable[[], None] | None = None,
    ) -> None:
        """One write of a trial: the look at its lease, our statements and Optuna's, in one transaction."""
        trial_id = self._id(number)
        held = self._trials[number]

        def first(connection: sa.Connection) -> None:
            if not hold_lease(connection, trial_id, held.owner, self.records.lease_seconds):
                raise LeaseLost(number)
            if guid_of(connection, trial_id, self.study._study_id) != held.guid:
                # Deleted; another trial may have its id by now.
                raise Deleted(number)
            if ours is not None:
                ours(connection, trial_id)

        def write() -> None:
            if optunas is None:
                with self.engine.begin() as connection:
                    first(connection)
            else:
                with self._fence.joined(first):
                    optunas()

        try:
            self._again(write)
        except (LeaseLost, UpdateFinishedTrialError) as lost:
            # Another program, the dashboard for one, may have ended it.
            self._trials.pop(number)
            if isinstance(lost, Deleted):
                self._bury(trial_id, number)
            self._again(self._checkpoints.sweep)
            raise lost if isinstance(lost, Deleted) else LeaseLost(number) from None
        self._again(self._checkpoints.sweep)

    def _bury(self, trial_id: int, number: int) -> None:
        """A trial was deleted: say so where its study was too, else keep its place."""
        if (gone := self._again(lambda: self._deleted(KeyError()))) is not None:
            raise gone
        self._again(lambda: keep_place(self.engine, trial_id, self.study._study_id, number))

    def _id(self, number: int) -> int:
        if number not in self._trials:
            raise LeaseLost(number)
        return self._trials[number].trial_id

    def _id_of(self, number: int) -> int:
        """The id of any trial of the study."""
        if number in self._trials:
            return self._trials[number].trial_id
        return self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _state(self, connection: sa.Connection, trial_id: int) -> TrialState | None:
        query = sa.select(optunas_trials.c.state).where(optunas_trials.c.trial_id == trial_id)
        return connection.execute(query).scalar()

    def _summary(self, trial_id: int) -> dict[str, float | int | str | None]:
        return summary(self.records.epochs([trial_id])[trial_id]) | self._how
