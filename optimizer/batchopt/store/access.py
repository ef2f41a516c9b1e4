"""Databases for reading without a trace, for writing in one transaction, and for as long as something takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL, Engine

from batchopt.errors import BatchoptError, DamagedDatabase, StorageNotFound
from batchopt.store.address import shown, storage_url, untouched
from batchopt.store.connecting import engine_to
from batchopt.store.damage import STUMBLES, damaged_rows
from batchopt.store.database import Database, check_storage, open_database, refusal
from batchopt.text import first_line


@contextmanager
def reading(storage: str) -> Iterator[sa.Connection]:
    """A database as it is at this moment, whatever is written to it meanwhile; nothing of it is changed.

    Args:
        storage: a path or an SQLAlchemy URL, of a database with Optuna's tables.

    Raises:
        StorageError: there is no such database, or it cannot be read.
        SchemaMismatch: its tables are of another version.
    """
    url = check_storage(storage, create=False, plain=True)
    if url.get_backend_name() == "sqlite":
        engine = _sqlite(untouched(url), begin="BEGIN")
    else:
        engine = engine_to(url, locks=False, isolation_level="REPEATABLE READ")
    try:
        with _said_in_a_line(url), engine.connect() as connection:
            try:
                yield connection
            except STUMBLES as error:
                _blame(error, url, connection)
                raise
    finally:
        engine.dispose()


@contextmanager
def explained(storage: str) -> Iterator[None]:
    """Where reading a database stumbles over a row, that row is named; what stumbles for another reason is not hidden.

    Raises:
        DamagedDatabase: a row is not what any program writes.
    """
    try:
        yield
    except STUMBLES as error:
        if not isinstance(error, BatchoptError):
            with suppress(StorageNotFound), reading(storage) as connection:
                _blame(error, storage_url(storage), connection)
        raise


@contextmanager
def writing(storage: str) -> Iterator[sa.Connection]:
    """A database in one transaction, kept only where nothing fails.

    Raises:
        StorageError: it cannot be written.
    """
    url = storage_url(storage)
    if url.get_backend_name() == "sqlite":
        engine = _sqlite(url, begin="BEGIN IMMEDIATE")
    else:
        # What is read under a lock must not be older than the lock.
        engine = engine_to(url, isolation_level="READ COMMITTED")
    try:
        with _said_in_a_line(url), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def opened(storage: str, *, create: bool = False, plain: bool = False) -> Iterator[Database]:
    """A study database, closed afterwards, to be read where it is not to be made; what it refuses is said in one line.

    Args:
        storage: a path or an SQLAlchemy URL.
        create, plain: as in `check_storage`.

    Raises:
        StorageError: it cannot be opened or read, or not any more.
        SchemaMismatch: its tables are of another version.
    """
    database = open_database(storage, create=create, plain=plain, read_only=not create)
    try:
        with explained(storage), _said_in_a_line(storage_url(storage)):
            yield database
    finally:
        database.db.dispose()


def is_file(storage: str) -> bool:
    """Whether a storage is an SQLite file."""
    return storage_url(storage).get_backend_name() == "sqlite"


def path_of(storage: str) -> Path:
    """The path of an SQLite file."""
    return Path(str(storage_url(storage).database))


def same_place(one: str, other: str) -> bool:
    """Whether two storages are the same database, as far as their names tell."""
    if is_file(one) and is_file(other):
        # Not `resolve`, which has no answer to links in a circle.
        return os.path.realpath(path_of(one)) == os.path.realpath(path_of(other))
    return storage_url(one) == storage_url(other)


def _sqlite(url: URL, *, begin: str) -> Engine:
    # SQLAlchemy says when a transaction begins, not Python's module, which would let reads run outside of one.
    engine = engine_to(url, connect_args={"isolation_level": None})

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    def only_read(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA query_only = 1")

    sa.event.listen(engine, "begin", start)
    if begin == "BEGIN":
        sa.event.listen(engine, "connect", only_read)
    return engine


def _blame(error: Exception, url: URL, connection: sa.Connection) -> None:
    """Name the row that an error comes from, if there is one."""
    row = None if isinstance(error, BatchoptError) else next(damaged_rows(connection), None)
    if row is not None:
        raise DamagedDatabase(
            f"database {shown(url)}: {row}. `batchopt doctor` names all such rows; restore a copy of the database, or "
            "choose another --storage."
        ) from error
    if not isinstance(error, BatchoptError) and connection.dialect.name == "sqlite":
        # An index may say something else than its table, of which every row is as it should be.
        found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
        if found != "ok":
            raise DamagedDatabase(
                f"database {shown(url)}: the file is damaged ({first_line(found.splitlines()[-1])}). `batchopt doctor` "
                "says more; restore a copy, or choose another --storage."
            ) from error


@contextmanager
def _said_in_a_line(url: URL) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, StorageInternalError) as error:
        raise refusal(url, error) from None
