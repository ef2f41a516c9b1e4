"""Where the state of an unfinished trial is kept: in the database, or, where it is large, in a file beside it.

A file is whole before the database names it, and is removed only after the database names it no more, so that whatever
is interrupted leaves at most a file that nobody asks for, which the doctor finds. A file beside the database is named
without its folder, so that the two may be moved, and opened from anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from optimizer.errors import BatchoptError, InvalidInput, StorageError
from optimizer.store.records import DamagedCheckpoint, forget, forget_training, put_checkpoint
from optimizer.store.tables import checkpoints_table
from optimizer.store.transactions import StoreAway

SERVER_SHARE = 0.4
"""Of what a server takes in one value: binary ones are escaped on their way."""

POSTGRESQL_VALUE = 1 << 30
"""Bytes that PostgreSQL takes in one value."""


PASSING = (errno.EIO, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH)
"""Of a network file system that is away."""


@dataclass(frozen=True)
class Placed:
    """A state on its way into the database.

    Attributes:
        content: its bytes; empty where they are in a file.
        location: that file, as the database names it.
    """

    content: bytes
    sha256: str
    location: str | None


class Checkpoints:
    """The checkpoints of one database.

    Args:
        engine: of the database.
        limit: bytes above which a state is kept in a file; so is one that the server does not take.
        folder: where files are kept, a path or an fsspec URL; beside an SQLite database where None. Without a place
            for files, everything that the server takes is kept in the database.

    Raises:
        InvalidInput: a URL for which there is no file system.
    """

    def __init__(self, engine: Engine, *, limit: int, folder: str | None) -> None:
        self._engine = engine
        self._limit = limit
        self._beside = beside(engine.url)
        self._folder: str | None = None
        if folder is not None:
            files, path = file_system(folder)
            local = "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,))
            # A relative path would be another one from another folder.
            self._folder = path if local else folder.rstrip("/")
        self._packet: int | None = None
        self._unnamed: list[str] = []

    def check(self, size: int) -> None:
        """Whether a state of so many bytes has a place.

        Raises:
            StorageError: neither a file nor the database can take it.
        """
        if self._folder is None and self._beside is None and not self._taken(size):
            raise StorageError(
                f"a checkpoint of {size >> 20} MiB is more than this server takes in one value. Give --checkpoints a "
                "folder or URL that all machines of the study reach, or raise the server's limit (max_allowed_packet)."
            )

    def placed(self, content: bytes) -> Placed:
        """Put a large state into a file, which `sweep` removes again unless the database has come to name it.

        Raises:
            StorageError: neither a file nor the database can take it.
        """
        digest = hashlib.sha256(content).hexdigest()
        nowhere_else = self._folder is None and self._beside is None
        if (len(content) <= self._limit or nowhere_else) and self._taken(len(content)):
            return Placed(content, digest, None)
        self.check(len(content))
        name = f"{uuid.uuid4().hex}.npz"
        location = name if self._folder is None else f"{self._folder}/{name}"
        self._unnamed.append(location)
        try:
            files, path = file_system(where_is(location, self._beside))
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, content)
        except Exception as error:
            if passes(error):
                raise StoreAway(f"checkpoint {location}: {error}") from error
            self.sweep()
            if not isinstance(error, OSError):
                raise
            raise StorageError(
                f"checkpoint {location} cannot be written: {error.strerror or error}. Everything finished is kept; "
                "choose another --checkpoints."
            ) from None
        return Placed(b"", digest, location)

    def put(self, connection: sa.Connection, trial_id: int, epoch: int, placed: Placed) -> None:
        """Name a state as a trial's latest, inside a transaction; `sweep` after it."""
        self._forget_file(connection, trial_id)
        put_checkpoint(connection, trial_id, epoch, placed.content, placed.sha256, placed.location)

    def forget(self, connection: sa.Connection, trial_id: int) -> None:
        """Forget a trial's state and lease, inside the transaction that ends it; `sweep` after it."""
        self._forget_file(connection, trial_id)
        forget(connection, trial_id)

    def forget_training(self, connection: sa.Connection, trial_id: int) -> None:
        """Forget a trial's epochs and state, inside a transaction; `sweep` after it."""
        self._forget_file(connection, trial_id)
        forget_training(connection, trial_id)

    def sweep(self) -> None:
        """Remove the files that the database does not name: replaced, or placed for a trial that is another's now."""
        if not self._unnamed:
            return
        query = sa.select(checkpoints_table.c.location).where(checkpoints_table.c.location.in_(self._unnamed))
        with self._engine.connect() as connection:
            named = set(connection.execute(query).scalars())
        for location in self._unnamed:
            if location not in named:
                remove(where_is(location, self._beside))
        self._unnamed.clear()

    def get(self, trial_id: int) -> tuple[int, bytes] | None:
        """The epoch and the state of a trial's checkpoint; None where there is none.

        Raises:
            DamagedCheckpoint: its bytes are not those that were written, or its file is not there.
        """
        query = sa.select(checkpoints_table).where(checkpoints_table.c.trial_id == trial_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        try:
            return row.epoch, content_of(row.content, row.sha256, row.location, self._beside)
        except Exception as error:
            cause = error.__context__ if isinstance(error, DamagedCheckpoint) else error
            if cause is not None and passes(cause):
                raise StoreAway(f"checkpoint {row.location}: {cause}") from error
            raise

    def _forget_file(self, connection: sa.Connection, trial_id: int) -> None:
        table = checkpoints_table
        location = connection.execute(sa.select(table.c.location).where(table.c.trial_id == trial_id)).scalar()
        if location:
            self._unnamed.append(location)

    def _taken(self, size: int) -> bool:
        """Whether the database takes a value of so many bytes."""
        if self._packet is None:
            self._packet = self._largest()
        return size < SERVER_SHARE * self._packet

    def _largest(self) -> int:
        """Bytes of the largest value, as the database counts them."""
        if self._engine.dialect.name in ("mysql", "mariadb"):
            with self._engine.connect() as connection:
                return int(connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one())
        return POSTGRESQL_VALUE


def passes(error: BaseException) -> bool:
    """Whether what a file system says may pass: a network one that is away, whatever its package raises for it."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return error.errno in PASSING
    return isinstance(error, Exception) and not isinstance(
        error, BatchoptError | DamagedCheckpoint | TypeError | ValueError | ImportError | NotImplementedError
    )


def beside(url: URL) -> str | None:
    """The folder for files beside an SQLite database, wherever it is looked at from; None for a server."""
    return f"{Path(str(url.database)).resolve()}-checkpoints" if url.get_backend_name() == "sqlite" else None


def where_is(location: str, beside: str | None) -> str:
    """The path or URL of a checkpoint's file.

    Args:
        location: as its row names it.
        beside: the folder beside the database.
    """
    if beside is None or "://" in location:
        return location
    name = f"{beside}/{location.rpartition('/')[2]}"
    # Rows of earlier versions name the folder too, as it was seen from where they were written.
    return location if "/" in location and (Path(location).exists() or not Path(name).exists()) else name


def remove(place: str) -> None:
    """Remove a file; one that is gone, or out of reach now, harms nobody."""
    with contextlib.suppress(OSError, InvalidInput):
        files, path = file_system(place)
        files.rm_file(path)


def content_of(content: bytes, sha256: str, location: str | None, beside: str | None) -> bytes:
    """The bytes of a checkpoint, given the columns of its row, and the folder beside its database.

    Raises:
        DamagedCheckpoint: they are not those that were written, or their file is not there.
    """
    if location:
        place = where_is(location, beside)
        try:
            files, path = file_system(place)
            content = files.cat_file(path)
        except (OSError, InvalidInput) as error:
            raise DamagedCheckpoint(f"{place} cannot be read: {error}") from None
    check_digest(hashlib.sha256(content).hexdigest(), sha256)
    return content


def check_digest(found: str, written: str) -> None:
    """Refuse bytes of another SHA-256 than the one that was written with them.

    Raises:
        DamagedCheckpoint: they are not those that were written.
    """
    if found != written:
        raise DamagedCheckpoint("its SHA-256 is not the one that was written with it")


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a path or a URL, and the path in it.

    Raises:
        InvalidInput: there is none for it, or its package is missing.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(location)  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"--checkpoints {location}: {error}. Give a folder, or a URL that fsspec knows.") from None
