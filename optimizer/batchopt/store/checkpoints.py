"""Where the state of an unfinished trial is kept: in the database, or, where it is large, in a file beside it.

A file is whole before the database names it, and is removed only after the database names it no more, so that whatever
is interrupted leaves at most a file that nobody asks for, which the doctor finds. A file beside the database is named
without its folder, so that the two may be moved, and opened from anywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from batchopt.errors import StorageError
from batchopt.store.folders import Away, Folders, check_digest, passes
from batchopt.store.records import forget, forget_training, put_checkpoint
from batchopt.store.tables import checkpoints_table
from batchopt.store.transactions import StoreAway
from batchopt.text import first_line, printable

SERVER_SHARE = 0.4
"""Of what a server takes in one value: binary ones are escaped on their way."""

POSTGRESQL_VALUE = 1 << 30
"""Bytes that PostgreSQL takes in one value."""


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
        db: the database.
        limit: bytes above which a state is kept in a file; so is one that the server does not take.
        folder: where files are kept, a path or an fsspec URL; beside an SQLite database where None. Without a place
            for files, everything that the server takes is kept in the database.

    Raises:
        InvalidInput: a URL for which there is no file system.
    """

    def __init__(self, db: Engine, *, limit: int, folder: str | None) -> None:
        self._db = db
        self._limit = limit
        self._folders = Folders(db.url, folder)
        self._packet: int | None = None
        self._unnamed: list[str] = []

    def check(self, size: int) -> None:
        """Whether a state of so many bytes has a place.

        Raises:
            StorageError: neither a file nor the database can take it.
        """
        if self._folders.for_writing is None and not self._taken(size):
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
        folder = self._folders.for_writing
        if (len(content) <= self._limit or folder is None) and self._taken(len(content)):
            return Placed(content, digest, None)
        self.check(len(content))
        assert folder is not None
        location = self._folders.new_location()
        self._unnamed.append(location)
        try:
            folder.write(location.rpartition("/")[2], content)
        except OSError as error:
            if passes(error):
                raise StoreAway(f"checkpoint {printable(location)}: {error.strerror or first_line(error)}") from error
            self.sweep()
            raise StorageError(
                f"checkpoint {printable(location)} cannot be written: {error.strerror or first_line(error)}. "
                "Everything finished is kept; choose another --checkpoints."
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
        with self._db.connect() as connection:
            named = set(connection.execute(query).scalars())
        for location in self._unnamed:
            if location not in named:
                self._folders.remove(location)
        self._unnamed.clear()

    def get(self, trial_id: int) -> tuple[int, bytes] | None:
        """The epoch and the state of a trial's checkpoint; None where there is none.

        Raises:
            DamagedCheckpoint: its bytes are not those that were written, or its file is not there.
        """
        query = sa.select(checkpoints_table).where(checkpoints_table.c.trial_id == trial_id)
        with self._db.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        try:
            return row.epoch, content_of(row.content, row.sha256, row.location, self._folders)
        except Away as away:
            raise StoreAway(f"checkpoint {printable(row.location)}: {away}") from away

    def epoch(self, trial_id: int) -> int:
        """The epoch of a trial's checkpoint; 0 where there is none."""
        table = checkpoints_table
        with self._db.connect() as connection:
            query = sa.select(table.c.epoch).where(table.c.trial_id == trial_id)
            return connection.execute(query).scalar() or 0

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
        if self._db.dialect.name in ("mysql", "mariadb"):
            with self._db.connect() as connection:
                return int(connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one())
        return POSTGRESQL_VALUE


def content_of(content: bytes, sha256: str, location: str | None, folders: Folders) -> bytes:
    """The bytes of a checkpoint, given the columns of its row, and the folders of its database.

    Raises:
        DamagedCheckpoint: they are not those that were written, or their file is not there.
    """
    if location:
        return folders.read(location, sha256)
    check_digest(hashlib.sha256(content).hexdigest(), sha256)
    return content
