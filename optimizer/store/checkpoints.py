"""Where the state of an unfinished trial is kept: in the database, or, where it is large, in a file beside it.

A file is whole before the database names it, and is removed only after the database names it no more, so that whatever
is interrupted leaves at most a file that nobody asks for.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from optimizer.errors import InvalidInput, StorageError
from optimizer.store.records import DamagedCheckpoint, forget, put_checkpoint
from optimizer.store.tables import checkpoints_table

MYSQL_PACKET_SHARE = 0.4
"""Of what a MySQL server takes in one statement: binary values are escaped on their way."""


@dataclass(frozen=True)
class Placed:
    """A state on its way into the database.

    Attributes:
        content: its bytes; empty where they are in a file.
        location: that file.
    """

    content: bytes
    sha256: str
    location: str | None


class Checkpoints:
    """The checkpoints of one database.

    Args:
        engine: of the database.
        limit: bytes above which a state is kept in a file.
        folder: where files are kept, a path or an fsspec URL; beside an SQLite database where None. Without a place
            for files, everything that the server takes is kept in the database.

    Raises:
        InvalidInput: a URL for which there is no file system.
    """

    def __init__(self, engine: Engine, *, limit: int, folder: str | None) -> None:
        self._engine = engine
        self._limit = limit
        if folder is None and engine.url.get_backend_name() == "sqlite":
            folder = f"{engine.url.database}-checkpoints"
        self._folder = folder
        if folder is not None:
            file_system(folder)
        self._unnamed: list[str] = []

    def placed(self, content: bytes) -> Placed:
        """Put a large state into a file.

        Raises:
            StorageError: neither a file nor the database can take it.
        """
        digest = hashlib.sha256(content).hexdigest()
        if len(content) <= self._limit or (self._folder is None and self._taken(len(content))):
            return Placed(content, digest, None)
        if self._folder is None:
            raise StorageError(
                f"a checkpoint of {len(content) >> 20} MiB is more than this server takes (max_allowed_packet). "
                "Give --checkpoints a folder or URL, or raise the server's limit."
            )
        location = f"{self._folder.rstrip('/')}/{uuid.uuid4().hex}.npz"
        try:
            files, path = file_system(location)
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, content)
        except OSError as error:
            raise StorageError(
                f"checkpoint {location} cannot be written: {error.strerror or error}. Everything finished is kept; "
                "choose another --checkpoints."
            ) from None
        return Placed(b"", digest, location)

    def put(self, connection: sa.Connection, trial_id: int, epoch: int, placed: Placed) -> None:
        """Name a state as a trial's latest, inside a transaction; `sweep` after it."""
        self._forget_file(connection, trial_id, but=placed.location)
        put_checkpoint(connection, trial_id, epoch, placed.content, placed.sha256, placed.location)

    def forget(self, connection: sa.Connection, trial_id: int) -> None:
        """Forget a trial's state and lease, inside the transaction that ends it; `sweep` after it."""
        self._forget_file(connection, trial_id)
        forget(connection, trial_id)

    def sweep(self) -> None:
        """Remove the files that the database names no more."""
        while self._unnamed:
            location = self._unnamed.pop()
            # One that is gone, or out of reach now, harms nobody.
            with contextlib.suppress(OSError):
                files, path = file_system(location)
                files.rm_file(path)

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
        return row.epoch, content_of(row.content, row.sha256, row.location)

    def _forget_file(self, connection: sa.Connection, trial_id: int, but: str | None = None) -> None:
        table = checkpoints_table
        location = connection.execute(sa.select(table.c.location).where(table.c.trial_id == trial_id)).scalar()
        if location and location not in (but, *self._unnamed):
            self._unnamed.append(location)

    def _taken(self, size: int) -> bool:
        """Whether the server takes a value of so many bytes."""
        if self._engine.url.get_backend_name() not in ("mysql", "mariadb"):
            return True
        with self._engine.connect() as connection:
            packet = connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one()
        return size < MYSQL_PACKET_SHARE * int(packet)


def content_of(content: bytes, sha256: str, location: str | None) -> bytes:
    """The bytes of a checkpoint, given the columns of its row.

    Raises:
        DamagedCheckpoint: they are not those that were written, or their file is not there.
    """
    if location:
        try:
            files, path = file_system(location)
            content = files.cat_file(path)
        except (OSError, InvalidInput) as error:
            raise DamagedCheckpoint(f"{location} cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedCheckpoint("its SHA-256 is not the one that was written with it")
    return content


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
