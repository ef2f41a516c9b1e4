"""Open a study database: checked before it is touched, created only where that was meant."""

from __future__ import annotations

import os
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Engine, make_url

from optimizer.errors import SchemaMismatch, StorageError, StorageNotFound
from optimizer.store.tables import SCHEMA_VERSION, metadata, schema_table

BUSY_TIMEOUT_S = 60
"""How long a writer waits for another on SQLite: Optuna's default of 5 s fails under eight processes."""

OPTUNA_TABLES = {"version_info", "studies", "trials"}
"""Their presence tells an Optuna database from any other."""


@dataclass(frozen=True)
class Database:
    """An open study database.

    Attributes:
        url: as SQLAlchemy writes it, without the password; what a user may pass again as `--storage`.
        engine: for our own tables; shared with Optuna's storage, so that there is one pool of connections.
        storage: Optuna's view of the same database.
    """

    url: str
    engine: Engine
    storage: RDBStorage


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
        SchemaMismatch: its tables are of another version.
    """
    url = storage_url(storage)
    try:
        url.get_dialect()
        if url.get_backend_name() == "sqlite" and not _check_file(url, create=create):
            return url
        engine = sa.create_engine(url)
    except sa.exc.NoSuchModuleError:
        raise StorageError(f"--storage {shown(url)}: no kind of database is called {url.drivername!r}.") from None
    except ModuleNotFoundError as error:
        raise StorageError(f"--storage {shown(url)} needs the Python package {error.name}; install it first.") from None
    try:
        with engine.connect() as connection:
            _check_tables(connection, url, create=create, plain=plain)
    except sa.exc.DatabaseError as error:
        raise StorageError(f"database {shown(url)}: {_first_line(error)}.") from None
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
    is_sqlite = url.get_backend_name() == "sqlite"
    # Optuna formats its URL; a password must stay in it, and braces must be doubled.
    text = url.render_as_string(hide_password=False)
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
    try:
        optuna_storage = RDBStorage(text, engine_kwargs=options)
        engine = optuna_storage.engine
        if create:
            if is_sqlite:
                # Connections made so far lack the pragmas.
                sa.event.listen(engine, "connect", _set_pragmas)
                engine.dispose()
            metadata.create_all(engine)
            with engine.begin() as connection:
                if connection.execute(sa.select(schema_table.c.version)).first() is None:
                    connection.execute(schema_table.insert().values(version=SCHEMA_VERSION))
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(f"database {shown(url)}: {_first_line(error)}.") from None
    except RuntimeError as error:
        # Optuna's own check of its tables' version.
        raise SchemaMismatch(f"database {shown(url)}: {error}") from None
    return Database(shown(url), engine, optuna_storage)


def shown(url: URL) -> str:
    """A URL for the screen: no password."""
    return url.render_as_string(hide_password=True)


def _check_file(url: URL, *, create: bool) -> bool:
    """Check an SQLite file; False where it is still to be made."""
    if not url.database or url.database == ":memory:":
        raise StorageError(f"--storage {shown(url)}: a study is kept in a file; give its path.")
    path = Path(url.database)
    if path.is_dir():
        raise StorageError(f"database {path} is a folder. Give the path of a file, for example {path / 'studies.db'}.")
    if not path.exists():
        if not create:
            raise StorageNotFound(f"database {path} does not exist. Check --storage; a study script makes one.")
        if not path.parent.is_dir():
            raise StorageError(f"database {path}: the folder {path.parent} does not exist. Make it first.")
        if not os.access(path.parent, os.W_OK):
            raise StorageError(f"database {path}: no permission to write in {path.parent}. Choose another --storage.")
        return False
    if create and not os.access(path, os.W_OK):
        raise StorageError(f"database {path}: no permission to write to it. Change that, or choose another --storage.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise StorageError(f"database {path}: {error.strerror}.") from None
    if head and head != b"SQLite format 3\x00":
        raise StorageError(f"{path} is not an SQLite database. Choose another --storage.")
    if not head and not create:
        raise StorageNotFound(f"database {path} is empty. Check --storage; a study script fills one.")
    return bool(head)


def _check_tables(connection: sa.Connection, url: URL, *, create: bool, plain: bool) -> None:
    tables = set(sa.inspect(connection).get_table_names())
    if not tables >= OPTUNA_TABLES:
        if not create:
            raise StorageNotFound(f"database {shown(url)} holds no study. Check --storage.")
        if tables and url.get_backend_name() == "sqlite":
            raise StorageError(
                f"database {shown(url)} holds other tables ({', '.join(sorted(tables)[:3])}) and no study. "
                "Choose another --storage."
            )
    if schema_table.name in tables:
        version = connection.execute(sa.select(schema_table.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"database {shown(url)} has batchopt tables of version {version}; this batchopt reads version "
                f"{SCHEMA_VERSION}. Use the batchopt that wrote it, or another --storage."
            )
    elif not create and not plain:
        raise StorageError(f"database {shown(url)} is an Optuna database without a batchopt study.")


def _set_pragmas(connection: sqlite3.Connection, record: Any) -> None:
    cursor = connection.cursor()
    # WAL lets readers, the dashboard first of all, read while the study writes.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0].rstrip(".")
