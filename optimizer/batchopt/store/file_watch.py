"""Whether an SQLite file is still the one that was opened: SQLite goes on in a file that nobody can find again."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from batchopt.errors import StorageFailed

Identity = tuple[int, int]
"""Device and inode."""

OPEN_FILES = Path("/proc/self/fd")


class FileWatch:
    """Looks, at the beginning of each transaction, whether a path still names the file that was opened.

    Where it does not, the first transaction that notices saves what there is, while this process still has the file
    open: a file that was moved is completed, from its log, which stayed behind; of one that is gone a copy is made.

    Args:
        path: of the database, which is there.
        shown: its name for the screen.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path.resolve()
        self._shown = shown
        self._opened = _identity(self._path)
        self._what_happened = ""

    def watch(self, engine: Engine) -> None:
        """Let no transaction of an engine begin in another file.

        Its transactions raise StorageFailed from then on, in one line.
        """
        sa.event.listen(engine, "do_connect", self._connecting)
        sa.event.listen(engine, "checkout", self._beginning)

    def _connecting(self, *anything: Any) -> None:
        # SQLite would make an empty file, or write to another one.
        self._check(None)

    def _beginning(self, connection: sqlite3.Connection, *anything: Any) -> None:
        self._check(connection)

    def _check(self, connection: sqlite3.Connection | None) -> None:
        if self._what_happened:
            raise StorageFailed(self._what_happened)
        try:
            now = _identity(self._path)
        except FileNotFoundError:
            now = None
        except OSError:
            # Out of reach for a moment, which is not to be gone; SQLite says it where it matters.
            return
        if now == self._opened:
            return
        self._what_happened = self._saved(connection, replaced=now is not None)
        raise StorageFailed(self._what_happened)

    def _saved(self, connection: sqlite3.Connection | None, *, replaced: bool) -> str:
        moved_to = _name_of(self._opened)
        if moved_to is not None:
            what = f"database {self._shown} was moved to {moved_to} while it was in use."
            with suppress(sqlite3.Error):
                if connection is None:
                    return f"{what} The last results may be missing there."
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return f"{what} Everything finished is there: go on with --storage {moved_to}."
        what = (
            f"database {self._shown} was {'replaced by another file' if replaced else 'removed'} while it was in use."
        )
        name = f"{self._path.stem}.{time.strftime('%Y%m%d-%H%M%S')}.rescued.db"
        for folder in (self._path.parent, Path.cwd()) if connection is not None else ():
            if not folder.is_dir():
                continue
            with suppress(sqlite3.Error), closing(sqlite3.connect(folder / name)) as copy:
                assert connection is not None
                connection.backup(copy)
                return f"{what} Everything finished was saved in {folder / name}: go on with --storage {folder / name}."
        return f"{what} What it held could not be saved; restore a copy, or choose another --storage."


def _identity(path: Path) -> Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def _name_of(file: Identity) -> Path | None:
    """What an open file is called now; None where it has no name any more, or where that cannot be seen."""
    with suppress(OSError):
        for link in OPEN_FILES.iterdir():
            # Looked at, and not opened: see `check_file` in `address.py`.
            with suppress(OSError):
                if _identity(link) == file and _identity(name := Path(os.readlink(link))) == file:
                    return name
    return None
