"""Open a study database: checked before it is touched, created only where that was meant."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Engine, make_url

from optimizer.errors import SchemaMismatch, StorageBusy, StorageError, StorageNotFound
from optimizer.store.connecting import BUSY_TIMEOUT_S, LOOK_UP_S, engine_options, engine_to
from optimizer.store.file_watch import FileWatch
from optimizer.store.filesystem import network_filesystem, special_file
from optimizer.store.tables import SCHEMA_VERSION, checkpoints_table, epochs_table, metadata, schema_table
from optimizer.store.transactions import passing, reason, sqlite_code

CHECK_SECONDS = 10
"""How long a server may be silent when it is asked which tables it has."""

MAKING_ATTEMPTS = 20
"""Processes that make the tables of one database in the same instant get in each other's way, for a moment."""

LEAST_PAGE = 512
"""Bytes of SQLite's smallest page: no database is smaller."""

OPTUNA_TABLES = {"version_info", "studies", "trials"}
"""Their presence tells an Optuna database from any other."""

OPTUNA_PREFIXES = ("study_", "trial_", "alembic_version")
"""Its other tables: a database that holds some of them, the first one included, is being made by another process."""


@dataclass(frozen=True)
class Database:
    """An open study database.

    Attributes:
        url: as SQLAlchemy writes it, without the password; what a user may pass again as `--storage`.
        engine: for our own tables; shared with Optuna's storage, so that there is one pool of connections.
        storage: Optuna's view of the same database.
        warning: what its user should know, in one line; empty where there is nothing.
    """

    url: str
    engine: Engine
    storage: RDBStorage
    warning: str = ""


def storage_url(storage: str) -> URL:
    """A path or an SQLAlchemy URL as a URL; a path is an SQLite file.

    Raises:
        StorageError: a URL that SQLAlchemy cannot read.
    """
    if "://" not in storage:
        return URL.create("sqlite", database=storage)
    try:
        return make_url(storage)
    except (sa.exc.ArgumentError, ValueError):
        # What cannot be read may still hold a password.
        hidden = re.sub(r"(?<=:)[^:/@]*(?=@)", "***", storage)
        raise StorageError(
            f"--storage {hidden}: not a path and not a database URL such as sqlite:///studies.db."
        ) from None


def check_storage(storage: str, *, create: bool, plain: bool = False) -> URL:
    """Look at a database without changing it.

    Args:
        storage: a path or an SQLAlchemy URL.
        create: whether it may be missing.
        plain: whether it may be Optuna's alone, without tables of ours.

    Returns:
        Its URL.

    Raises:
        StorageNotFound: it is missing or empty, unless `create`.
        StorageError: it is unreachable, not writable, or not a study database.
        StorageBusy: another program has locked it.
        SchemaMismatch: its tables are of another version.
    """
    url = storage_url(storage)
    try:
        url.get_dialect()
        if url.get_backend_name() == "sqlite" and not check_file(url, create=create):
            return url
        engine = engine_to(url if create else untouched(url), busy=LOOK_UP_S, silence=CHECK_SECONDS)
    except sa.exc.NoSuchModuleError:
        raise StorageError(f"--storage {shown(url)}: no kind of database is called {url.drivername!r}.") from None
    except ModuleNotFoundError as error:
        raise StorageError(f"--storage {shown(url)} needs the Python package {error.name}; install it first.") from None
    try:
        with engine.connect() as connection:
            _check_tables(connection, url, create=create, plain=plain)
    except sa.exc.DatabaseError as error:
        raise refusal(url, error) from None
    finally:
        engine.dispose()
    return url


def open_database(storage: str, *, create: bool, plain: bool = False) -> Database:
    """Open a study database; arguments as `check_storage`. `create` makes what tables are missing.

    Raises:
        StorageError, SchemaMismatch: as `check_storage`.
    """
    url = check_storage(storage, create=create, plain=plain)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
    shared = network_filesystem(path) if path else ""
    for attempt in range(MAKING_ATTEMPTS):
        try:
            optuna_storage = _made(url, create=create, wal=not shared)
            break
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if attempt + 1 == MAKING_ATTEMPTS or not _in_the_way(error):
                raise refusal(url, error) from None
            time.sleep(random.uniform(0.05, 0.2))
        except RuntimeError as error:
            # Optuna's own check of its tables' version.
            raise SchemaMismatch(f"database {shown(url)}: {error}") from None
    if path and create:
        FileWatch(path, shown(url)).watch(optuna_storage.engine)
    return Database(shown(url), optuna_storage.engine, optuna_storage, _warning(url, path, shared))


def _warning(url: URL, path: Path | None, shared: str) -> str:
    if shared:
        return (
            f"database {shown(url)} is on a network file system ({shared}): SQLite is slow there, and safe for one "
            "machine at a time. For several machines use PostgreSQL or MySQL."
        )
    if path and path.stat().st_nlink > 1:
        return (
            f"database {shown(url)} has more than one name (a hard link). Use one of them only: opened by two at the "
            "same time, SQLite damages it."
        )
    return ""


def _made(url: URL, *, create: bool, wal: bool) -> RDBStorage:
    """Optuna's storage, with the tables that are missing where `create` says so."""
    # Optuna formats its URL; a password must stay in it, and braces must be doubled.
    text = url.render_as_string(hide_password=False)
    storage = RDBStorage(text, engine_kwargs=engine_options(url, busy=LOOK_UP_S if create else BUSY_TIMEOUT_S))
    engine = storage.engine
    if create:
        if url.get_backend_name() == "sqlite":
            # Connections made so far lack the pragmas.
            sa.event.listen(engine, "connect", _pragmas("WAL" if wal else "DELETE"))
            engine.dispose()
        _migrate(engine)
        metadata.create_all(engine)
        with engine.begin() as connection:
            if connection.execute(sa.select(schema_table.c.version)).first() is None:
                connection.execute(schema_table.insert().values(version=SCHEMA_VERSION))
    return storage


def _migrate(engine: Engine) -> None:
    """Bring tables of an earlier version to this one; the change and its record are kept together, or neither is.

    Tables that are missing altogether are made afterwards.
    """
    tables = sa.inspect(engine).get_table_names()
    if schema_table.name not in tables:
        return
    with engine.begin() as connection:
        version = connection.execute(sa.select(schema_table.c.version)).scalar()
        if version is None or version >= SCHEMA_VERSION:
            return
        for table in (checkpoints_table, epochs_table):
            there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
            for column in table.c:
                if column.name not in there:
                    kind = column.type.compile(connection.dialect)
                    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
        connection.execute(schema_table.update().values(version=SCHEMA_VERSION))


def _in_the_way(error: Exception) -> bool:
    """Whether another process was making the same tables, so that they are there the next time."""
    text = str(error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error).lower()
    return any(
        word in text for word in ("already exists", "duplicate", "unique", "locked", "deadlock", "no such table")
    )


def untouched(url: URL) -> URL:
    """The URL to read a database by that leaves an SQLite file, and the folder around it, as they are."""
    if url.get_backend_name() != "sqlite":
        return url
    # SQLite follows links too, and keeps its log beside what they lead to.
    path = Path(str(url.database)).resolve()
    if Path(f"{path}-wal").exists():
        # Somebody writes, or was killed while writing: who opened it for writing would tidy up after them.
        mode = {"mode": "ro"}
    elif os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # Read-only, SQLite could not remove the files again that it makes to read a WAL database.
        mode = {"mode": "rw"}
    else:
        mode = {"immutable": "1"}
    return URL.create("sqlite", database=path.as_uri(), query={"uri": "true", **mode})


def shown(url: URL) -> str:
    """A URL for the screen: no password."""
    return url.render_as_string(hide_password=True)


def check_file(url: URL, *, create: bool) -> bool:
    """Check an SQLite file; False where it is still to be made.

    It is looked at, and never opened: closing a file drops all locks that this process has on it, those of SQLite too,
    and the next process to close the database would delete the log that is still written to. What is in the file,
    SQLite says.

    Source: fcntl(2); https://www.sqlite.org/howtocorrupt.html, section 2.2.
    """
    if not url.database or url.database == ":memory:":
        raise StorageError(f"--storage {shown(url)}: a study is kept in a file; give its path.")
    path = Path(url.database)
    try:
        found = path.stat()
    except FileNotFoundError:
        _check_place(path, create=create)
        return False
    except OSError as error:
        raise StorageError(f"database {path}: {error.strerror}.") from None
    if stat.S_ISDIR(found.st_mode):
        raise StorageError(f"database {path} is a folder. Give the path of a file, for example {path / 'studies.db'}.")
    if kind := special_file(path):
        raise StorageError(f"database {path} is {kind}. Give the path of a file.")
    if not os.access(path, os.R_OK):
        raise StorageError(f"database {path}: no permission to read it. Change that, or choose another --storage.")
    if create and not os.access(path, os.W_OK):
        raise StorageError(f"database {path}: no permission to write to it. Change that, or choose another --storage.")
    if not found.st_size and not create:
        raise StorageNotFound(f"database {path} is empty. Check --storage; a study script fills one.")
    if 0 < found.st_size < LEAST_PAGE:
        # Of one byte, SQLite would make a new database.
        raise _no_database(path)
    return bool(found.st_size)


def _check_place(path: Path, *, create: bool) -> None:
    """Check where a file is that is not there."""
    if not create:
        raise StorageNotFound(f"database {path} does not exist. Check --storage; a study script makes one.")
    if not path.parent.is_dir():
        raise StorageError(f"database {path}: the folder {path.parent} does not exist. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"database {path}: no permission to write in {path.parent}. Choose another --storage.")


def _check_tables(connection: sa.Connection, url: URL, *, create: bool, plain: bool) -> None:
    tables = set(sa.inspect(connection).get_table_names())
    if not tables >= OPTUNA_TABLES:
        if not create:
            raise StorageNotFound(f"database {shown(url)} holds no study. Check --storage.")
        others = sorted(name for name in tables - OPTUNA_TABLES if not name.startswith(OPTUNA_PREFIXES))
        if "studies" not in tables:
            others = sorted(tables)
        if others and url.get_backend_name() == "sqlite":
            raise StorageError(
                f"database {shown(url)} holds other tables ({', '.join(others[:3])}) and no study. "
                "Choose another --storage."
            )
    if schema_table.name in tables:
        version = connection.execute(sa.select(schema_table.c.version)).scalar()
        if version is not None and not 1 <= version <= SCHEMA_VERSION:
            raise SchemaMismatch(
                f"database {shown(url)} has batchopt tables of version {version}; this batchopt reads version "
                f"{SCHEMA_VERSION}. Use the batchopt that wrote it, or another --storage."
            )
    elif not create and not plain:
        raise StorageError(f"database {shown(url)} is an Optuna database without a batchopt study.")


def _pragmas(journal_mode: str) -> Callable[[sqlite3.Connection, Any], None]:
    def set_pragmas(connection: sqlite3.Connection, record: Any) -> None:
        cursor = connection.cursor()
        # WAL lets readers, the dashboard first of all, read while the study writes; it needs memory that is shared,
        # which no network file system has.
        cursor.execute(f"PRAGMA journal_mode = {journal_mode}")
        cursor.execute(f"PRAGMA synchronous = {'NORMAL' if journal_mode == 'WAL' else 'FULL'}")
        cursor.close()

    return set_pragmas


def refusal(url: URL, error: Exception) -> StorageError:
    """What a database says when it is opened or read, in one line; one that is locked may be asked again."""
    if sqlite_code(error) == sqlite3.SQLITE_NOTADB:
        return _no_database(url.database)
    if passing(error) == "contention":
        return StorageBusy(f"database {shown(url)} is locked by another program. Try again when that has ended.")
    return StorageError(f"database {shown(url)}: {reason(error)}.")


def _no_database(path: object) -> StorageError:
    return StorageError(
        f"{path} is not an SQLite database, or its beginning is damaged. Choose another --storage, or restore a copy."
    )
