"""Where a database is: a path or a URL, as it is given, opened and shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from batchopt.errors import StorageError, StorageNotFound
from batchopt.store.filesystem import special_file
from batchopt.text import printable, shown_url

MISTYPED = re.compile(r"\s*(sqlite|postgres(ql)?|mysql|mariadb|oracle|mssql)(\+\w+)?\s*:", re.IGNORECASE)
"""A URL without its `//`."""


SQLITE_OPTIONS = {"cached_statements", "check_same_thread", "detect_types", "isolation_level", "timeout", "uri"}
"""What may stand behind the `?` of a file's URL."""

LEAST_PAGE = 512
"""Bytes of SQLite's smallest page: no database is smaller."""


def storage_url(storage: str) -> URL:
    """A path or an SQLAlchemy URL as a URL; a path is an SQLite file.

    Raises:
        StorageError: neither, or a URL that could be read in two ways.
    """
    if not isinstance(storage, str | os.PathLike):
        raise StorageError(f"--storage {storage!r}: give a path, or a database URL such as sqlite:///studies.db.")
    storage = os.fspath(storage)
    refused = f"--storage {shown_url(storage)}: not a path and not a database URL such as sqlite:///studies.db."
    if "\0" in storage or "%00" in storage:
        raise StorageError(refused)
    if "://" not in storage:
        # A URL with a typing error, password and all, is not to become the name of a file.
        if MISTYPED.match(storage) or (shown_url(storage) != printable(storage) and not Path(storage).exists()):
            raise StorageError(refused)
        return URL.create("sqlite", database=storage)
    try:
        url = make_url(storage)
    except (sa.exc.ArgumentError, ValueError):
        raise StorageError(refused) from None
    if url.get_backend_name() != "sqlite" and storage.partition("?")[0].count("@") > 1:
        raise StorageError(f"--storage {shown_url(storage)}: write the @ in a password as %40, a / as %2F.")
    if url.get_backend_name() == "sqlite" and url.drivername not in ("sqlite", "sqlite+pysqlite"):
        # Whatever that driver does, encryption first of all, ours would not do.
        raise StorageError(
            f"--storage {shown_url(storage)}: {url.drivername} is not used here, a file is opened by Python's own "
            "SQLite and is not encrypted. Write sqlite:///studies.db."
        )
    unknown = sorted(set(url.query) - SQLITE_OPTIONS) if url.get_backend_name() == "sqlite" else []
    if unknown:
        raise StorageError(f"--storage {shown_url(storage)}: SQLite knows no option {unknown[0]!r}. Leave it out.")
    return url


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
    return shown_url(url.render_as_string(hide_password=False))


def shown_storage(storage: str) -> str:
    """A path or a URL for the screen."""
    return shown(storage_url(storage))


def check_file(url: URL, *, create: bool) -> bool:
    """Check an SQLite file; False where it is still to be made.

    It is looked at, and never opened: closing a file drops all locks that this process has on it, those of SQLite too,
    and the next process to close the database would delete the log that is still written to. What is in the file,
    SQLite says.

    Source: fcntl(2); https://www.sqlite.org/howtocorrupt.html, section 2.2.

    Raises:
        StorageNotFound: it is missing or empty, unless `create`.
        StorageError: no database can be at that path, or this user may not use it.
    """
    if not url.database or url.database == ":memory:":
        raise StorageError(f"--storage {shown(url)}: a study is kept in a file; give its path.")
    path, name = Path(url.database), printable(url.database)
    try:
        found = path.stat()
    except FileNotFoundError:
        _check_place(path, create=create)
        return False
    except OSError as error:
        # A loop of links, a name that is too long, a folder that is none.
        raise StorageError(f"database {name}: {error.strerror}. Check --storage.") from None
    if stat.S_ISDIR(found.st_mode):
        example = printable(path / "studies.db")
        raise StorageError(f"database {name} is a folder. Give the path of a file, for example {example}.")
    if kind := special_file(path):
        raise StorageError(f"database {name} is {kind}. Give the path of a file.")
    if not os.access(path, os.R_OK):
        raise StorageError(f"database {name}: no permission to read it. Change that, or choose another --storage.")
    if create and not os.access(path, os.W_OK):
        raise StorageError(f"database {name}: no permission to write to it. Change that, or choose another --storage.")
    if not found.st_size and not create:
        raise StorageNotFound(f"database {name} is empty. Check --storage; a study script fills one.")
    if 0 < found.st_size < LEAST_PAGE:
        # Of one byte, SQLite would make a new database.
        raise no_database(path)
    return bool(found.st_size)


def no_database(path: object) -> StorageError:
    """What to say of a file that is something else."""
    return StorageError(
        f"{printable(path)} is not an SQLite database, or its beginning is damaged. Choose another --storage, or "
        "restore a copy."
    )


def _check_place(path: Path, *, create: bool) -> None:
    """Check where a file is that is not there."""
    name, folder = printable(path), printable(path.parent)
    if not create:
        raise StorageNotFound(f"database {name} does not exist. Check --storage; a study script makes one.")
    if not path.parent.is_dir():
        raise StorageError(f"database {name}: the folder {folder} does not exist. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"database {name}: no permission to write in folder {folder}. Choose another --storage.")
