"""What keeps several processes on one study apart: a fence around each write of a trial, and turns at asking.

A lease says whose a trial is (`records.py`). The fence looks at it inside the very transaction that writes, and holds
its row until that transaction ends, so that a process that was stopped, or cut off, for longer than its lease and then
goes on cannot mix its late results into what another one has taken over since.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine

from batchopt.store.owner import is_dead
from batchopt.store.tables import database_clock, leases_table, turns_table
from batchopt.store.transactions import Transactions

TURN_SECONDS = 10.0
"""How long a turn at asking lasts: longer than most decisions. A third of a lease where that is shorter, so that a
process that died in its turn is not waited for longer than for its trials."""

LONGEST_TURN_S = 300.0
"""To which turns grow where decisions take longer: lost each time, they would never be made."""

TURN_PAUSE_S = 0.03
"""Between two looks at whose turn it is, in the mean; a turn takes some hundredths of a second."""


class LeaseLost(Exception):
    """A trial is no longer this process's: another one has taken it over, or it has ended.

    Attributes:
        trial: its number.
    """

    def __init__(self, trial: int) -> None:
        super().__init__(f"trial {trial} was taken over by another process")
        self.trial = trial


class Deleted(LeaseLost):
    """A trial is no longer anybody's: another program has deleted it."""

    def __init__(self, trial: int) -> None:
        Exception.__init__(self, f"trial {trial} was deleted by another program, and counts as failed")
        self.trial = trial


class TurnLost(Exception):
    """The turn at asking is another process's now: whatever was read in it may be out of date."""


class Fence:
    """Joins statements of ours to transactions of Optuna's, as their first ones.

    While `joined` is entered, every transaction that Optuna's storage begins on this thread starts with them; what
    they raise rolls it back. A write of a trial and the look at its lease are then one transaction, and so are an
    epoch's row, its value in Optuna's tables, and the checkpoint after it.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._of_thread = threading.local()
        sa.event.listen(storage.scoped_session, "after_begin", self._begun)

    @contextmanager
    def joined(self, first: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Begin each of Optuna's transactions with `first`; the innermost one counts."""
        before, self._of_thread.first = self._first, first
        try:
            yield
        finally:
            self._of_thread.first = before

    @property
    def _first(self) -> Callable[[sa.Connection], None] | None:
        return getattr(self._of_thread, "first", None)

    def begin(self, connection: sa.Connection) -> None:
        """Begin a transaction of ours as those of Optuna's begin now."""
        if self._first is not None:
            self._first(connection)

    def _begun(self, session: Any, transaction: Any, connection: sa.Connection) -> None:
        self.begin(connection)


def hold_lease(connection: sa.Connection, trial_id: int, owner: str, seconds: float) -> bool:
    """Renew a lease inside a transaction, which keeps it from being taken over until the transaction ends.

    The owner's name is the fence: whoever takes a lease over puts its own there in one atomic statement. A lease that
    expired and that nobody has taken is its owner's still, so that nothing trained is thrown away for no one's sake.

    Returns:
        Whether the trial is the owner's.
    """
    table = leases_table
    mine = sa.and_(table.c.trial_id == trial_id, table.c.owner == owner)
    held = connection.execute(table.update().where(mine).values(expires_at=database_clock() + seconds))
    return held.rowcount == 1


class Turns:
    """Turns at asking: of all processes of a study, one at a time reads what there is, decides, and begins a trial.

    So `--trials` is a total, no two processes ask for the same, and what looks as if nobody had it is really nobody's.
    What Optuna writes in a turn looks at it in the same transaction, so that a process that was stopped, or cut off, in
    its turn for longer than it lasts begins nothing by what it read before.
    """

    def __init__(self, db: Engine, study_id: int, owner: str, *, lease_seconds: float) -> None:
        self._db = db
        self._seconds = min(TURN_SECONDS, lease_seconds / 3)
        self._study_id = study_id
        self._owner = owner

    def take(self) -> bool:
        """Take the turn where it is free; one atomic statement decides.

        Returns:
            Whether it is this process's now.
        """
        table, mine = turns_table, {"owner": self._owner, "expires_at": database_clock() + self._seconds}
        free = sa.or_(table.c.expires_at < database_clock(), table.c.owner == self._owner)
        with self._db.connect() as connection:
            # Most looks find that it is another's turn; they write nothing, and stand in no writer's way.
            query = sa.select(table.c.owner, free).where(table.c.study_id == self._study_id)
            holder, is_free = connection.execute(query).one_or_none() or (None, True)
        if holder is not None and not is_free:
            if not is_dead(holder):
                return False
            with self._db.begin() as connection:
                connection.execute(table.delete().where(table.c.study_id == self._study_id, table.c.owner == holder))
            holder = None
        if holder is None:
            try:
                with self._db.begin() as connection:
                    connection.execute(table.insert().values(study_id=self._study_id, **mine))
            except sa.exc.IntegrityError:
                return False
            return True
        with self._db.begin() as connection:
            taken = connection.execute(table.update().where(table.c.study_id == self._study_id, free).values(mine))
            return taken.rowcount == 1

    @contextmanager
    def taken(self, fence: Fence, transactions: Transactions, patience: float) -> Iterator[bool]:
        """This process's turn, waited for so many seconds; false where it did not come.

        Its next turns last twice as long as this one took, where that is longer.

        What Optuna's storage does in it is kept only while the turn is this process's, and raises TurnLost after.
        """
        until, mine = time.monotonic() + patience, transactions.again(self.take)
        while not mine and time.monotonic() < until:
            transactions.check()
            time.sleep(random.uniform(0.5, 1.5) * TURN_PAUSE_S)
            mine = transactions.again(self.take)
        if not mine:
            yield False
            return
        began = time.monotonic()
        try:
            with fence.joined(self.hold):
                yield True
        finally:
            self._seconds = min(max(self._seconds, 2 * (time.monotonic() - began)), LONGEST_TURN_S)
            transactions.again(self.end)

    def hold(self, connection: sa.Connection) -> None:
        """Renew the turn inside a transaction, which keeps it from being taken until the transaction ends.

        As with leases the name is the fence, and not the hour.

        Raises:
            TurnLost: another process has taken it; the transaction is not to be kept.
        """
        table = turns_table
        mine = sa.and_(table.c.study_id == self._study_id, table.c.owner == self._owner)
        held = connection.execute(table.update().where(mine).values(expires_at=database_clock() + self._seconds))
        if held.rowcount != 1:
            raise TurnLost

    def end(self) -> None:
        """Let the next one ask."""
        table = turns_table
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.study_id == self._study_id, table.c.owner == self._owner))
