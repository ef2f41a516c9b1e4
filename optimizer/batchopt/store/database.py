"""Open a study database: checked before it is touched, created only where that was meant."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from alembic.util import CommandError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Engine

from batchopt.errors import SchemaMismatch, StorageBusy, StorageError, StorageNotFound
from batchopt.store.address import check_file, no_database, shown, storage_url, untouched
from batchopt.store.connecting import BUSY_TIMEOUT_S, LOOK_UP_S, engine_options, engine_to
from batchopt.store.file_watch import FileWatch
from batchopt.store.filesystem import network_filesystem
from batchopt.store.tables import (
    SCHEMA_VERSION,
    metadata,
    optunas_studies,
    schema_table,
)
from batchopt.store.transactions import passing, reason, sqlite_code
from batchopt.text import first_line, printable

CHECK_SECONDS = 10
"""How long a server may be silent when it is asked which tables it has."""

MAKING_ATTEMPTS = 20
"""Processes that make the tables of one database in the same instant get in each other's way, for a moment."""

UNUSABLE = (TypeError, ValueError, OSError, ImportError)
"""What drivers raise beside their own errors, where a URL says what they cannot take."""

OPTUNA_TABLES = {"version_info", "studies", "trials"}
"""Their presence tells an Optuna database from any other."""

OPTUNA_PREFIXES = ("study_", "trial_", "alembic_version")
"""Its other tables: a database that holds some of them, the first one included, is being made by another process."""


@dataclass(frozen=True)
class Database:
    """An open study database.

    Attributes:
        url: as SQLAlchemy writes it, without the password; what a user may pass again as `--storage`.
        db: for our own tables; shared with Optuna's storage, so that there is one pool of connections.
        storage: Optuna's view of the same database.
        warning: what its user should know, in one line; empty where there is nothing.
    """

    url: str
    db: Engine
    storage: RDBStorage
    warning: str = ""


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
        db = engine_to(untouched(url), busy=LOOK_UP_S, silence=CHECK_SECONDS)
    except sa.exc.NoSuchModuleError:
        raise StorageError(f"--storage {shown(url)}: no kind of database is called {url.drivername!r}.") from None
    except ModuleNotFoundError as error:
        raise StorageError(f"--storage {shown(url)} needs the Python package {error.name}; install it first.") from None
    except TypeError as error:
        raise StorageError(f"--storage {shown(url)}: {reason(error, url)}.") from None
    try:
        with db.connect() as connection:
            _check_tables(connection, url, create=create, plain=plain)
    except (sa.exc.SQLAlchemyError, *UNUSABLE) as error:
        raise refusal(url, error) from None
    finally:
        db.dispose()
    return url


def open_database(storage: str, *, create: bool, plain: bool = False, read_only: bool = False) -> Database:
    """Open a study database; arguments as `check_storage`. `create` makes what tables are missing.

    Read-only it can not be written, and what SQLite would tidy up after a writer that was killed stays as it is.

    Raises:
        StorageError, SchemaMismatch: as `check_storage`.
    """
    url = check_storage(storage, create=create, plain=plain)
    if not create:
        _check_versioned(url)
    path = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
    shared = network_filesystem(path) if path else ""
    for attempt in range(MAKING_ATTEMPTS):
        try:
            optuna_storage = _made(untouched(url) if read_only else url, create=create, wal=not shared)
            break
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, *UNUSABLE) as error:
            if attempt + 1 == MAKING_ATTEMPTS or not _in_the_way(error):
                raise refusal(url, error) from None
            time.sleep(random.uniform(0.05, 0.2))
        except CommandError as error:
            raise StorageError(f"database {shown(url)}: {first_line(error)}. `batchopt doctor` says more.") from None
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
    options = engine_options(url, busy=LOOK_UP_S if create else BUSY_TIMEOUT_S)
    storage = RDBStorage(text, engine_kwargs=options, skip_table_creation=not create)
    db = storage.engine
    if create:
        if url.get_backend_name() == "sqlite":
            # Connections made so far lack the pragmas.
            sa.event.listen(db, "connect", _pragmas("WAL" if wal else "DELETE"))
            db.dispose()
        metadata.create_all(db)
        with db.begin() as connection:
            if connection.execute(sa.select(schema_table.c.version)).first() is None:
                connection.execute(schema_table.insert().values(version=SCHEMA_VERSION))
    return storage


def optuna_versions(connection: sa.Connection) -> list[str]:
    """The versions that Optuna's tables say they are of: one, or none where Optuna would write it."""
    tables = set(sa.inspect(connection).get_table_names())
    if not {"alembic_version", "version_info"} <= tables:
        return []
    if connection.execute(sa.select(sa.literal(1)).select_from(sa.table("version_info"))).first() is None:
        return []
    table = sa.table("alembic_version", sa.column("version_num"))
    return [str(version) for version in connection.execute(sa.select(table)).scalars() if version is not None]


def _check_versioned(url: URL) -> None:
    """Refuse to read what Optuna would write to: it writes the version of its tables where it finds none.

    Raises:
        StorageNotFound: the tables are being made in this moment, and hold no study.
        StorageError: they hold some, and do not say of which version they are.
    """
    db = engine_to(untouched(url))
    try:
        with db.connect() as connection:
            # In this order: Optuna writes the version before any study.
            empty = connection.execute(sa.select(optunas_studies.c.study_id)).first() is None
            versions = optuna_versions(connection)
    except sa.exc.SQLAlchemyError as error:
        raise refusal(url, error) from None
    finally:
        db.dispose()
    if len(versions) == 1:
        return
    if empty and not versions:
        raise StorageNotFound(f"database {shown(url)} holds no study. Check --storage.")
    raise StorageError(
        f"database {shown(url)} does not say of which one version Optuna's tables are. `batchopt doctor` says more."
    )


def _in_the_way(error: Exception) -> bool:
    """Whether another process was making the same tables, so that they are there the next time."""
    text = str(error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error).lower()
    return any(
        word in text for word in ("already exists", "duplicate", "unique", "locked", "deadlock", "no such table")
    )


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
        if version not in (None, SCHEMA_VERSION):
            raise SchemaMismatch(
                f"database {shown(url)} has batchopt tables of version {printable(version)}; this batchopt reads "
                f"version {SCHEMA_VERSION}. Use the batchopt that wrote it, or another --storage."
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
        return no_database(url.database)
    if passing(error) == "contention":
        return StorageBusy(f"database {shown(url)} is locked by another program. Try again when that has ended.")
    return StorageError(f"database {shown(url)}: {reason(error, url)}.")
