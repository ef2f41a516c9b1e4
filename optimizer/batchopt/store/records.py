"""Machines, epochs, leases and checkpoints: short statements, each one transaction of its own, or part of another."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Engine

from batchopt.machine.machine import Machine
from batchopt.measured import Epoch, is_number
from batchopt.question.options import LEASE_SECONDS
from batchopt.store.leases import hold_lease
from batchopt.store.owner import is_dead
from batchopt.store.tables import (
    checkpoints_table,
    database_clock,
    epochs_table,
    leases_table,
    machines_table,
    optunas_studies,
    optunas_study_attributes,
    optunas_user_attributes,
)
from batchopt.store.trial_rows import CHUNK, uncollected


class DamagedCheckpoint(Exception):
    """What was read is not what was written."""


class Records:
    """Our own tables of one database.

    Args:
        db: the database.
        lease_seconds: how long leases last that are taken here.

    Attributes:
        known: the epochs of unfinished trials as they were last read, with the trial as Optuna had it then.
    """

    def __init__(self, db: Engine, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._db = db
        self.lease_seconds = lease_seconds
        self.known: dict[int, tuple[FrozenTrial, list[dict[str, Any]]]] = {}

    def add_machine(self, machine: Machine) -> None:
        """Remember a machine, under its fingerprint."""
        with self._db.begin() as connection:
            key = {"fingerprint": machine.fingerprint}
            replace_row(connection, machines_table, key, {"description": machine.describe()})

    def machines(self) -> dict[str, dict[str, Any]]:
        """Descriptions of all machines, by fingerprint."""
        with self._db.connect() as connection:
            return {row.fingerprint: row.description for row in connection.execute(sa.select(machines_table))}

    def add_epoch(self, trial_id: int, machine: str, epoch: Epoch, compile_seconds: float) -> None:
        """Keep an epoch; one that is trained again takes the place of the first."""
        with self._db.begin() as connection:
            put_epoch(connection, trial_id, machine, epoch, compile_seconds)

    def epochs(self, trial_ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
        """The epochs of each trial, in order, by trial id."""
        with self._db.connect() as connection, uncollected():
            return epoch_rows(connection, list(trial_ids), self._epoch_columns)

    @functools.cached_property
    def _epoch_columns(self) -> list[sa.Column[Any]]:
        """Those that are there: a database that is only read may be an earlier version's."""
        there = {column["name"] for column in sa.inspect(self._db).get_columns(epochs_table.name)}
        return [column for column in epochs_table.c if column.name in there]

    def take_lease(self, trial_id: int, owner: str) -> bool:
        """Take a trial that is nobody's, or whose lease has expired; one atomic statement decides.

        Returns:
            Whether the trial is the owner's now.
        """
        try:
            with self._db.begin() as connection:
                take_lease(connection, trial_id, owner, self.lease_seconds)
        except sa.exc.IntegrityError:
            return False
        return True

    def renew_leases(self, trial_ids: Iterable[int], owner: str) -> list[int]:
        """Keep the owner's trials its own for another `lease_seconds`.

        Returns:
            Those that are its own no longer.
        """
        with self._db.begin() as connection:
            # In one order everywhere, so that two transactions cannot wait for each other.
            return [id_ for id_ in sorted(trial_ids) if not hold_lease(connection, id_, owner, self.lease_seconds)]

    def release_lease(self, trial_id: int, owner: str) -> None:
        """Let a trial go; anyone may take it up."""
        table = leases_table
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.trial_id == trial_id, table.c.owner == owner))

    def forget_dead_owners(self) -> None:
        """Release the leases of processes that were killed on this system, without waiting for them to expire."""
        for owner in set(self.leased().values()):
            if is_dead(owner):
                with self._db.begin() as connection:
                    connection.execute(leases_table.delete().where(leases_table.c.owner == owner))

    def leases_of(self, client: str) -> dict[int, str]:
        """The owner of each trial, by trial id, whose owner's name begins so; expired or not."""
        table = leases_table
        query = sa.select(table.c.trial_id, table.c.owner).where(table.c.owner.startswith(client, autoescape=True))
        with self._db.connect() as connection:
            return {row.trial_id: row.owner for row in connection.execute(query)}

    def expired(self, client: str) -> dict[int, str]:
        """The owner of each trial, by trial id, whose owner's name begins so and whose lease has expired."""
        table = leases_table
        over = sa.and_(table.c.expires_at < database_clock(), table.c.owner.startswith(client, autoescape=True))
        with self._db.connect() as connection:
            return {row.trial_id: row.owner for row in connection.execute(sa.select(table).where(over))}

    def leased(self) -> dict[int, str]:
        """The owner of each trial whose lease has not expired, by trial id."""
        table = leases_table
        query = sa.select(table.c.trial_id, table.c.owner).where(table.c.expires_at >= database_clock())
        with self._db.connect() as connection:
            return {row.trial_id: row.owner for row in connection.execute(query)}


def take_lease(connection: sa.Connection, trial_id: int, owner: str, seconds: float) -> None:
    """Take a trial that is nobody's, or whose lease has expired, inside a transaction.

    Raises:
        IntegrityError: it is another's.
    """
    table = leases_table
    values = {"owner": owner, "expires_at": database_clock() + seconds}
    free = sa.or_(table.c.expires_at < database_clock(), table.c.owner == owner)
    taken = connection.execute(table.update().where(table.c.trial_id == trial_id, free).values(values))
    if not taken.rowcount:
        connection.execute(table.insert().values(trial_id=trial_id, **values))


def put_attributes(connection: sa.Connection, trial_id: int, attributes: Mapping[str, object]) -> None:
    """Write user attributes of a trial as Optuna does, all at once, inside a transaction."""
    table, rows = (
        optunas_user_attributes,
        [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()],
    )
    connection.execute(table.delete().where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
    connection.execute(table.insert(), rows)


def put_entry(connection: sa.Connection, study_id: int, attribute: str, key: str, value: object) -> None:
    """Write one entry of a study's user attribute that has many, inside a transaction.

    Of processes that do so in the same moment each finds what the one before it has written, so that all entries stay.
    """
    studies, attributes = optunas_studies, optunas_study_attributes
    # A write that changes nothing, and keeps others from coming between the reading and the writing.
    connection.execute(studies.update().where(studies.c.study_id == study_id).values(study_name=studies.c.study_name))
    mine = sa.and_(attributes.c.study_id == study_id, attributes.c.key == attribute)
    known = connection.execute(sa.select(attributes.c.value_json).where(mine)).scalar()
    entries = ({} if known is None else json.loads(known)) | {key: value}
    connection.execute(attributes.delete().where(mine))
    connection.execute(attributes.insert().values(study_id=study_id, key=attribute, value_json=json.dumps(entries)))


def epoch_rows(
    connection: sa.Connection, trial_ids: Sequence[int], columns: Sequence[sa.Column[Any]] = tuple(epochs_table.c)
) -> dict[int, list[dict[str, Any]]]:
    """The epochs of each trial, in order, by trial id, inside a transaction; of each these columns."""
    found: dict[int, list[dict[str, Any]]] = {trial_id: [] for trial_id in trial_ids}
    names = [column.name for column in columns]
    at = names.index("trial_id")
    query = sa.select(*columns).order_by(epochs_table.c.trial_id, epochs_table.c.epoch)
    for start in range(0, len(trial_ids), CHUNK):
        chunk = query.where(epochs_table.c.trial_id.in_(trial_ids[start : start + CHUNK]))
        for row in connection.execute(chunk).all():
            found[row[at]].append(dict(zip(names, row, strict=True)))
    return found


def put_epoch(connection: sa.Connection, trial_id: int, machine: str, epoch: Epoch, compile_seconds: float) -> None:
    """Keep an epoch, inside a transaction."""
    key = {"trial_id": trial_id, "epoch": epoch.epoch}
    replace_row(connection, epochs_table, key, epoch_row(trial_id, machine, epoch, compile_seconds))


def epoch_row(trial_id: int, machine: str, epoch: Epoch, compile_seconds: float = 0.0) -> dict[str, Any]:
    """An epoch as a row of its table."""
    figures = {name: _storable(value) for name, value in vars(epoch).items()}
    return {"trial_id": trial_id, "machine": machine, "compile_seconds": compile_seconds, **figures}


def put_checkpoint(
    connection: sa.Connection, trial_id: int, epoch: int, content: bytes, sha256: str, location: str | None
) -> None:
    """Keep a trial's state after `epoch` epochs, in the place of an earlier one, inside a transaction."""
    values = {"epoch": epoch, "sha256": sha256, "content": content, "location": location}
    replace_row(connection, checkpoints_table, {"trial_id": trial_id}, values)


def forget(connection: sa.Connection, trial_id: int) -> None:
    """Remove the lease and the checkpoint of a trial that ends, inside the transaction that ends it."""
    connection.execute(checkpoints_table.delete().where(checkpoints_table.c.trial_id == trial_id))
    connection.execute(leases_table.delete().where(leases_table.c.trial_id == trial_id))


def forget_training(connection: sa.Connection, trial_id: int) -> None:
    """Remove the epochs and the checkpoint of a trial, inside a transaction."""
    connection.execute(epochs_table.delete().where(epochs_table.c.trial_id == trial_id))
    connection.execute(checkpoints_table.delete().where(checkpoints_table.c.trial_id == trial_id))


def replace_row(connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Put a row in the place of the one of that key, inside a transaction.

    Raises:
        IntegrityError: another process has put one there in the same moment.
    """
    # MariaDB counts changed rows, not matched ones, so an update that changes nothing would look like none.
    connection.execute(table.delete().where(*(table.c[name] == value for name, value in key.items())))
    connection.execute(table.insert().values(**{**values, **key}))


def _storable(value: float | None) -> float | None:
    """NULL for NaN and infinity, which not every database can hold."""
    return value if value is not None and is_number(value) else None
