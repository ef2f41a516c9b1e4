"""Where a database is: a path or a URL, as it is given, opened and shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from optimizer.errors import StorageError
from optimizer.text import printable, shown_url

MISTYPED = re.compile(r"\s*(sqlite|postgres(ql)?|mysql|mariadb|oracle|mssql)(\+\w+)?\s*:", re.IGNORECASE)
"""A URL without its `//`."""


SQLITE_OPTIONS = {"cached_statements", "check_same_thread", "detect_types", "isolation_level", "timeout", "uri"}
"""What may stand behind the `?` of a file's URL."""


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
    path = Path(str(url.database))
    if Path(f"{path}-wal").exists():
        # Somebody writes, or was killed while writing: who opened it for writing would tidy up after them.
        mode = {"mode": "ro"}
    elif os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # Read-only, SQLite could not remove the files again that it makes to read a WAL database.
        mode = {"mode": "rw"}
    else:
        mode = {"immutable": "1"}
    return URL.create("sqlite", database=path.resolve().as_uri(), query={"uri": "true", **mode})


def shown(url: URL) -> str:
    """A URL for the screen: no password."""
    return shown_url(url.render_as_string(hide_password=False))


def shown_storage(storage: str) -> str:
    """A path or a URL for the screen."""
    return shown(storage_url(storage))


def check_path(url: URL) -> None:
    """Refuse a path that no database can be at: a loop of links, a name that is too long, a pipe."""
    try:
        kind = os.stat(str(url.database)).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise StorageError(f"database {shown(url)}: {getattr(error, 'strerror', error)}. Check --storage.") from None
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise StorageError(f"database {shown(url)} is not a file. Choose another --storage.")
