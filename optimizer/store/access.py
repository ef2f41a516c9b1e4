"""Databases for reading without a trace, for writing in one transaction, and for as long as something takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL, Engine

from optimizer.errors import StorageError
from optimizer.store.database import (
    BUSY_TIMEOUT_S,
    Database,
    check_storage,
    open_database,
    shown,
    storage_url,
    untouched,
)
from optimizer.store.transactions import reason
from optimizer.text import without_secrets


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
        engine = sa.create_engine(url, isolation_level="REPEATABLE READ")
    try:
        with _said_in_a_line(url), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


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
        engine = sa.create_engine(url, isolation_level="READ COMMITTED")
    try:
        with _said_in_a_line(url), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def opened(storage: str, *, create: bool = False, plain: bool = False) -> Iterator[Database]:
    """A study database, closed afterwards; what it refuses meanwhile is said in one line.

    Args:
        storage: a path or an SQLAlchemy URL.
        create, plain: as in `check_storage`.

    Raises:
        StorageError: it cannot be opened or read, or not any more.
        SchemaMismatch: its tables are of another version.
    """
    database = open_database(storage, create=create, plain=plain)
    try:
        with _said_in_a_line(storage_url(storage)):
            yield database
    finally:
        database.engine.dispose()


def is_file(storage: str) -> bool:
    """Whether a storage is an SQLite file."""
    return storage_url(storage).get_backend_name() == "sqlite"


def path_of(storage: str) -> Path:
    """The path of an SQLite file."""
    return Path(str(storage_url(storage).database))


def same_place(one: str, other: str) -> bool:
    """Whether two storages are the same database, as far as their names tell."""
    if is_file(one) and is_file(other):
        return path_of(one).resolve() == path_of(other).resolve()
    return storage_url(one) == storage_url(other)


def _sqlite(url: URL, *, begin: str) -> Engine:
    # SQLAlchemy says when a transaction begins, not Python's module, which would let reads run outside of one.
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None})

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    def only_read(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA query_only = 1")

    sa.event.listen(engine, "begin", start)
    if begin == "BEGIN":
        sa.event.listen(engine, "connect", only_read)
    return engine


@contextmanager
def _said_in_a_line(url: URL) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(f"database {shown(url)}: {_reason(error, url)}.") from None


def _reason(error: Exception, url: URL) -> str:
    return without_secrets(reason(error), url.render_as_string(hide_password=False))
