"""The trials of one study that are held here: taken, kept, let go, and written to as long as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import TypeVar

import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from batchopt.errors import StorageFailed
from batchopt.optuna_private import storage_of, study_id_of, trial_id_of
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.database import Database
from batchopt.store.deletion import guid_of, keep_place, named, study_gone
from batchopt.store.ends import Overtaken
from batchopt.store.leases import Deleted, Fence, LeaseLost, TurnLost, Turns, hold_lease
from batchopt.store.owner import new_owner
from batchopt.store.records import Records, put_attributes, take_lease
from batchopt.store.study_facts import StudyLedger
from batchopt.store.tables import optunas_trials
from batchopt.store.together import Held, Told, keep_together
from batchopt.store.transactions import Transactions

T = TypeVar("T")


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
        self._trials: dict[int, Held] = {}
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

    def begin(
        self, number: int, owner: str | None = None, attributes: Mapping[str, object] = MappingProxyType({})
    ) -> bool:
        """Own a running trial: one that was just asked for, or one that nobody owns.

        Args:
            number: the trial's.
            owner: whose it is to be, a client's name unlike any other's; this process's where None.
            attributes: written with it, as user attributes of the trial.

        Returns:
            Whether it is the owner's now; not where another one was faster, or where it has ended.
        """
        return self._again(lambda: self._begin(number, owner or self.owner, attributes))

    def gone(self) -> StorageFailed | None:
        """What to say where another program has deleted the study; None where it is there."""
        return self._again(lambda: self._deleted(KeyError()))

    def frozen(self, number: int) -> FrozenTrial:
        """A trial as Optuna has it now."""
        return self._again(lambda: self.database.storage.get_trial(self._id_of(number)))

    def owned(self) -> list[int]:
        """The numbers of the unfinished trials that are written here."""
        return list(self._trials)

    def renew(self) -> list[int]:
        """Keep this process's trials its own.

        Returns:
            The numbers of those that are not any more; they are forgotten here.
        """
        mine = {number: held.trial_id for number, held in self._trials.items()}
        lost = self._again(lambda: self.records.renew_leases(mine.values(), self.owner))
        numbers = [number for number, trial_id in mine.items() if trial_id in lost]
        for number in numbers:
            del self._trials[number]
        return numbers

    def take_up(self, number: int, owner: str) -> bool:
        """Write for an owner whose lease another process may have taken, such as a server before its restart.

        Returns:
            Whether the trial is the owner's and runs; its lease is renewed by that.
        """
        return self._again(lambda: self._take_up(number, owner))

    def holder(self, number: int) -> str | None:
        """The owner of a trial whose lease is written here; None where it is not."""
        held = self._trials.get(number)
        return None if held is None else held.owner

    def take_over(self, number: int, other: HeldTrials) -> None:
        """Write for the owner of a trial that another ledger of this study writes for until now."""
        self._trials[number] = other._trials.pop(number)

    def keep_together(self, told: Sequence[Told]) -> set[int]:
        """Keep epochs of trials that are held, at most one of each, renew their leases, and end those that are over.

        All of it is one transaction; what has ended is held no longer.

        Returns:
            The numbers of those that are their owners' no longer: of them nothing was written, and they are forgotten.
        """
        held = {one.trial: self._trials[one.trial] for one in told if one.trial in self._trials}
        there = [one for one in told if one.trial in held]

        def keep() -> set[int]:
            while True:
                with suppress(Overtaken), self.db.begin() as connection:
                    return keep_together(
                        connection,
                        study_id_of(self.study),
                        held,
                        there,
                        lease_seconds=self.records.lease_seconds,
                        how=self._how,
                        checkpoints=self._checkpoints,
                    )

        lost = self._again(keep) | {one.trial for one in told if one.trial not in held}
        for number in lost | {one.trial for one in there if one.end is not None}:
            if self._trials.get(number) is held.get(number):
                self._trials.pop(number, None)
        self._again(self._checkpoints.sweep)
        return lost

    def leases_of(self, client: str) -> list[tuple[int, str]]:
        """The unfinished trials, by number, that were last leased to owners whose names begin so, and these names."""
        return self._numbered(self._again(lambda: self.records.leases_of(client)))

    def expired(self, client: str) -> list[tuple[int, str]]:
        """Those of them whose leases have expired."""
        return self._numbered(self._again(lambda: self.records.expired(client)))

    def _numbered(self, leased: dict[int, str]) -> list[tuple[int, str]]:
        if not leased:
            return []
        running = self._again(lambda: self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        ids = {trial_id_of(trial): trial.number for trial in running}
        return sorted((ids[trial_id], owner) for trial_id, owner in leased.items() if trial_id in ids)

    def mark(self, number: int, name: str, value: object) -> None:
        """Write a user attribute of a trial that is held; raises as every write of it."""
        trial_id = self._id(number)
        self._write(number, None, lambda: self.database.storage.set_trial_user_attr(trial_id, name, value))

    def let_go(self, number: int) -> None:
        """Let a trial go as it is; it stays RUNNING, for anyone to take up."""
        held = self._trials.pop(number)
        self._again(lambda: self.records.release_lease(held.trial_id, held.owner))

    def release(self) -> None:
        """Let all trials go."""
        for number in self.owned():
            self.let_go(number)

    def _begin(self, number: int, owner: str, attributes: Mapping[str, object]) -> bool:
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
                if attributes:
                    put_attributes(connection, trial_id, attributes)
        except sa.exc.IntegrityError:
            return False
        self._trials[number] = Held(trial_id, guid, owner)
        return True

    def _take_up(self, number: int, owner: str) -> bool:
        try:
            trial_id = self._id_of(number)
        except KeyError:
            return False
        with self.db.begin() as connection:
            if not hold_lease(connection, trial_id, owner, self.records.lease_seconds):
                return False
            if self._state(connection, trial_id) != TrialState.RUNNING:
                return False
            guid = guid_of(connection, trial_id, study_id_of(self.study))
        if guid is None:
            return False
        self._trials[number] = Held(trial_id, guid, owner)
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
                # A new trial may get its id, and would be taken for ours until the lease expires.
                self._again(lambda: self.records.release_lease(trial_id, held.owner))
                self._replace_deleted(trial_id, number)
            self._again(self._checkpoints.sweep)
            raise lost if isinstance(lost, Deleted) else LeaseLost(number) from None
        self._again(self._checkpoints.sweep)

    def _replace_deleted(self, trial_id: int, number: int) -> None:
        """A trial was deleted: say so where its study was too, else keep its place."""
        if (gone := self.gone()) is not None:
            raise gone
        self._again(lambda: keep_place(self.db, trial_id, study_id_of(self.study), number))

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
