"""How a write survives its database: what is passing is tried again with growing pauses, what is not is said in a line.

Every operation that is handed to `Transactions.again` may be done twice without harm, because nobody can know whether a
transaction whose connection broke in its last moment was kept or not.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL

from batchopt.errors import StorageBusy, StorageFailed
from batchopt.store.address import shown
from batchopt.text import first_line, without_secrets

Passing = Literal["contention", "connection"]
"""Another writer was in the way; or the server cannot be reached now."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0

PATIENCE_S = 900.0
"""How long a database may be away: a server's restart, a switch that is replaced, a short night's backup."""

QUIET_S = 1.0
"""An interruption shorter than this is no news."""

LONG_LOCK_S = 4.0
"""Other writers are waited for so long without a word."""

POSTGRESQL_CONTENTION = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, lock not available."""

POSTGRESQL_CONNECTION = ("08", "25P03", "57P01", "57P02", "57P03", "53300")
"""Connection exceptions, an abandoned transaction, shutdown by an administrator, after a crash, still starting up, too
many connections."""

MYSQL_CONTENTION = (1020, 1205, 1213)
"""A row changed since it was read, lock wait timeout, deadlock."""

MYSQL_CONNECTION = (1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1927, 2002, 2003, 2006, 2013, 2055, 4031)
"""Too many connections, shutdown, aborted and killed connections, the client's own words for a lost one, idle."""

GONE = ("3D000", "42P01", 1046, 1049, 1146)
"""PostgreSQL: no such database, no such table; MySQL: no database selected, unknown database, no such table."""

T = TypeVar("T")


class StoreAway(Exception):
    """Where checkpoints are kept could not be reached, or failed; it may pass."""


class Transactions:
    """Does database operations, again where that helps.

    Args:
        url: of the database.
        say: told in one line that the database is away, and that it is back.
        check: called between two attempts; may raise, to end the waiting.
        explain: given what Optuna raises where a study or a trial is gone, says what happened; None for no idea.
        patience: seconds of failing after which the last error stands.
    """

    def __init__(
        self,
        url: URL,
        *,
        say: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
        patience: float = PATIENCE_S,
    ) -> None:
        self._url, self._shown = url, shown(url)
        self._say = say
        self.check = check
        self.explain: Callable[[KeyError], Exception | None] = lambda error: None
        self._patience = patience

    def again(self, operation: Callable[[], T]) -> T:
        """Do an operation until it succeeds.

        Args:
            operation: may be done twice without harm.

        Raises:
            StorageFailed: the database refuses for a reason that does not pass, or is away for too long.
        """
        started, pause, said = time.monotonic(), FIRST_PAUSE_S, False
        while True:
            try:
                result = operation()
            except KeyError as error:
                raise self.explain(error) or error from None
            except (sa.exc.SQLAlchemyError, StorageInternalError, StorageBusy, StoreAway) as error:
                kind, away = passing(error), time.monotonic() - started
                if kind is None or away > self._patience:
                    # What could not be reached for so long is not waited for once more.
                    self._patience = 0.0
                    raise self._refusal(error, away if kind else None) from error
                quiet = QUIET_S if kind == "connection" else LONG_LOCK_S
                if not said and away + pause > quiet:
                    self._say(f"database {self._shown} {self._trouble(kind, error)}; trying again")
                    said = True
            else:
                if said:
                    self._say(f"database {self._shown} is back after {time.monotonic() - started:.0f} s")
                return result
            self.check()
            # Several who were thrown out at once do not come back at once.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _refusal(self, error: Exception, away: float | None) -> StorageFailed:
        why = reason(error, self._url)
        if away is not None:
            return StorageFailed(
                f"database {self._shown} could not be used for {away:.0f} s: {why}. Everything finished is "
                "kept; the same command goes on."
            )
        what = _remedy(error) or "The same command goes on from what was kept."
        return StorageFailed(f"database {self._shown}: {why}. {what}")

    def _trouble(self, kind: Passing, error: Exception) -> str:
        return (
            f"cannot be reached ({reason(error, self._url)})"
            if kind == "connection"
            else "is locked by another program"
        )


def _gone(error: Exception) -> bool:
    """Whether a database, or its tables, have been removed."""
    text = _said(error).lower()
    return _code(getattr(_cause(error), "orig", None)) in GONE or ("does not exist" in text and "database" in text)


def passing(error: Exception) -> Passing | None:
    """Whether an error of a database passes by itself, and why; None where trying again is of no use."""
    error = _cause(error)
    if isinstance(error, StorageBusy):
        return "contention"
    if isinstance(error, StoreAway):
        return "connection"
    if _gone(error):
        return None
    if isinstance(error, sa.exc.TimeoutError | sa.exc.PendingRollbackError):
        # The latter where Optuna asks in another way after its connection has broken.
        return "connection"
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return "contention" if sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else None
    if error.connection_invalidated:
        return "connection"
    code = _code(cause)
    if isinstance(code, int):
        return "contention" if code in MYSQL_CONTENTION else "connection" if code in MYSQL_CONNECTION else None
    if code:
        return (
            "contention"
            if code in POSTGRESQL_CONTENTION
            else "connection"
            if code.startswith(POSTGRESQL_CONNECTION)
            else None
        )
    # A server that was not reached at all has no code to give.
    return "connection" if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) else None


def sqlite_code(error: Exception) -> int | None:
    """SQLite's primary result code; None for errors of others."""
    code = getattr(getattr(_cause(error), "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _cause(error: Exception) -> Exception:
    """What is behind Optuna's word for it."""
    wrapped = isinstance(error, StorageInternalError) and isinstance(error.__cause__, Exception)
    return error.__cause__ if wrapped else error  # type: ignore[return-value]


def reason(error: Exception, url: URL) -> str:
    """What a database says, in one line and without the passwords in its URL."""
    return without_secrets(_said(error), url.render_as_string(hide_password=False))


def _said(error: Exception) -> str:
    error = _cause(error)
    if isinstance(error, sa.exc.PendingRollbackError):
        return "the connection was lost"
    cause = getattr(error, "orig", None) or error
    if _code(cause) and isinstance(_code(cause), int) and len(cause.args) > 1:
        cause = cause.args[1]
    return first_line(cause)


def _code(cause: object) -> str | int | None:
    """PostgreSQL's SQLSTATE, or MySQL's number; 0 is the word of its client for a connection that is closed."""
    args = getattr(cause, "args", ())
    if type(cause).__module__.startswith("pymysql") and args and isinstance(args[0], int):
        # Before its SQLSTATE, which newer ones have too, and which says less.
        return args[0] or 2006
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def _remedy(error: Exception) -> str | None:
    text = _said(error).lower()
    if isinstance(_cause(error), sa.exc.IntegrityError):
        return "Most likely another program has deleted a trial, and left rows of it: `batchopt doctor --fix` mends it."
    if _gone(error):
        return "It was removed while it was in use: restore a copy, or choose another --storage."
    if "full" in text.split() or "no space" in text:
        return "Everything finished is kept: free some space, then the same command goes on."
    if "readonly" in text or "read-only" in text:
        return "Everything finished is kept: allow writing to it, then the same command goes on."
    if "malformed" in text or "not a database" in text:
        return "The file is damaged: restore a copy of it, or choose another --storage."
    return None
