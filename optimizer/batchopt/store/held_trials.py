"""The trials of one study that are held here: taken, kept, let go, and written to as long as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from batchopt.errors import StorageFailed
from batchopt.optuna_private import storage_of, study_id_of
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.database import Database
from batchopt.store.deletion import guid_of, keep_place, named, study_gone
from batchopt.store.leases import Deleted, Fence, LeaseLost, TurnLost, Turns, hold_lease
from batchopt.store.owner import new_owner
from batchopt.store.records import Records, take_lease
from batchopt.store.study_facts import StudyLedger
from batchopt.store.tables import optunas_trials
from batchopt.store.transactions import Transactions

T = TypeVar("T")


class _Held(NamedTuple):
    """A trial whose lease is written here."""

    trial_id: int
    guid: str
    owner: str


class HeldTrials(StudyLedger):
    """Owns trials of a study, and looks at each write whether they are still its own.

    Args:
        database: of the study.
        study: in it.
        lease_seconds: how long a trial stays its owner's without a word from it.
        transactions: how writes are done again.
        checkpoints: the states of unfinished trials.

    Attributes:
        database: as it was given.
        owner: this process's name on its leases, where no client is named.
    """

    def __init__(
        self,
        database: Database,
        study: Study,
        lease_seconds: float,
        transactions: Transactions,
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__(database.db, study, Records(database.db, lease_seconds=lease_seconds), transactions)
        self.owner = new_owner()
        self._study_name = self._again(lambda: study.study_name)
        self._turns = Turns(database.db, study_id_of(study), self.owner, lease_seconds=lease_seconds)
        self._trials: dict[int, _Held] = {}
        self.transactions.explain = self._deleted
        self.database = database
        self._checkpoints = checkpoints
        self._fence = Fence(database.storage)

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
        """Let all trials of this process go; a client's stays its own, whoever serves it next."""
        for number in self.owned(self.owner):
            self.let_go(number)
        self._trials.clear()

    def owner_of(self, number: int) -> str | None:
        """Whose a trial is whose lease is written here; None for any other."""
        return self._trials[number].owner if number in self._trials else None

    def held_for(self, client: str) -> tuple[int, str] | None:
        """The trial that a client holds, wherever it was asked for, and as which owner; None for none.

        Args:
            client: what the names of the client's leases begin with, of this study alone.
        """
        for trial_id, owner in self._again(self.records.leased).items():
            if owner.startswith(client):
                number = self._again(lambda key=trial_id: self._number_if_begun(key))  # type: ignore[misc]
                if number is not None:
                    return number, owner
                # Of a trial that was deleted; another one may have its id by now.
                self._again(lambda key=trial_id, name=owner: self.records.release_lease(key, name))  # type: ignore[misc]
        return None

    def hand_over(self, number: int, owner: str, heir: str) -> bool:
        """Put another name on a lease, so that what is still written under the old one is late.

        Returns:
            Whether the trial was the owner's, and is the heir's now.
        """
        trial_id = self._id_of(number)
        if not self._again(lambda: self.records.rename_lease(trial_id, owner, heir)):
            return False
        if number in self._trials:
            self._trials[number] = self._trials[number]._replace(owner=heir)
        return True

    def adopt(self, number: int, owner: str) -> bool:
        """Write for an owner whose trial was begun by another process; returns whether it is the owner's still."""
        return self._again(lambda: self._adopt(number, owner))

    def expired(self) -> list[int]:
        """The numbers of clients' trials whose leases are over, though nobody has taken them up yet."""
        theirs = {number: held for number, held in self._trials.items() if held.owner != self.owner}
        leased = self._again(self.records.leased) if theirs else {}
        return [number for number, held in theirs.items() if leased.get(held.trial_id) != held.owner]

    def _begin(self, number: int, owner: str) -> bool:
        trial_id = self._id_of(number)
        try:
            with self.db.begin() as connection:
                self._fence.begin(connection)
                take_lease(connection, trial_id, owner, self.records.lease_seconds)
                # After the taking: it may have ended, and its lease gone with it, since it was looked at.
                if self._state(connection, trial_id) != TrialState.RUNNING:
                    connection.rollback()
                    return False
                guid = named(connection, trial_id, study_id_of(self.study), self._checkpoints)
        except sa.exc.IntegrityError:
            return False
        self._trials[number] = _Held(trial_id, guid, owner)
        return True

    def _adopt(self, number: int, owner: str) -> bool:
        try:
            trial_id = self._id_of(number)
        except KeyError:
            return False
        with self.db.begin() as connection:
            if not hold_lease(connection, trial_id, owner, self.records.lease_seconds):
                return False
            guid = guid_of(connection, trial_id, study_id_of(self.study))
            if guid is None or self._state(connection, trial_id) != TrialState.RUNNING:
                # The lease is of a trial that was deleted, and whose id another one has now.
                return False
        self._trials[number] = _Held(trial_id, guid, owner)
        return True

    def _deleted(self, error: KeyError) -> StorageFailed | None:
        """What Optuna's `Record does not exist` means, where it is the study's."""
        with self.db.connect() as connection:
            return study_gone(connection, study_id_of(self.study), self._study_name, self.database.url)

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
            if guid_of(connection, trial_id, study_id_of(self.study)) != held.guid:
                # Deleted; another trial may have its id by now.
                raise Deleted(number)
            if ours is not None:
                ours(connection, trial_id)

        def write() -> None:
            if optunas is None:
                with self.db.begin() as connection:
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
                self._replace_deleted(trial_id, number)
            self._again(self._checkpoints.sweep)
            raise lost if isinstance(lost, Deleted) else LeaseLost(number) from None
        self._again(self._checkpoints.sweep)

    def _replace_deleted(self, trial_id: int, number: int) -> None:
        """A trial was deleted: say so where its study was too, else keep its place."""
        if (gone := self._again(lambda: self._deleted(KeyError()))) is not None:
            raise gone
        self._again(lambda: keep_place(self.db, trial_id, study_id_of(self.study), number))

    def _number_if_begun(self, trial_id: int) -> int | None:
        """The number of a running trial of this study that somebody has begun; None for any other."""
        with self.db.connect() as connection:
            if guid_of(connection, trial_id, study_id_of(self.study)) is None:
                return None
            if self._state(connection, trial_id) != TrialState.RUNNING:
                return None
        try:
            return self.database.storage.get_trial_number_from_id(trial_id)
        except KeyError:
            return None

    def _id(self, number: int) -> int:
        if number not in self._trials:
            raise LeaseLost(number)
        return self._trials[number].trial_id

    def _id_of(self, number: int) -> int:
        """The id of any trial of the study."""
        if number in self._trials:
            return self._trials[number].trial_id
        return storage_of(self.study).get_trial_id_from_study_id_trial_number(study_id_of(self.study), number)

    def _state(self, connection: sa.Connection, trial_id: int) -> TrialState | None:
        query = sa.select(optunas_trials.c.state).where(optunas_trials.c.trial_id == trial_id)
        return connection.execute(query).scalar()
